// A client of Rabia Bank for browsers and Node.js, without dependencies.
//
//     import { RabiaBank, Refused, Unknown } from "./rabia-bank.mjs";
//     const bank = new RabiaBank(["ws://127.0.0.1:7101", "ws://127.0.0.1:7102", "ws://127.0.0.1:7103"], { token: "rb_…" });
//     await bank.createAccount("alice", 1000);
//     const { transaction } = await bank.transfer("alice", "bob", 300);
//     const balance = await bank.balance("bob");
//     const feed = bank.subscribe({ account_id: "bob" }, (transaction) => console.log(transaction));
//     feed.close(); await bank.close();
//
// One WebSocket at a time; when a node is lost, silent or stopping, the next URL is tried, in the same session and with the
// same request numbers, so that nothing is executed twice. A call ends in one of three ways:
// - it resolves: applied (or read), once;
// - it rejects with `Refused`: certainly not executed, and `code` says why;
// - it rejects with `Unknown`: whether it was executed could not be found out in time. It may still be. Never treat it as failed.
// (Of a query: it had no answer.)
//
// Nodes of later versions may say words and fields that this module does not know. They are handed out as they came. A refusal with
// an unknown code means what its outcome says; an answer that can't be read is `Unknown`, and not asked for again.
//
// Amounts and balances are whole numbers of minor units (cents) up to 2^53 − 1, which JavaScript's numbers hold exactly.
// A BigInt is taken where it is no larger. A whole number above, which JavaScript may have rounded, is never sent: the call
// rejects with a RangeError.
//
// Messages are JSON; with { encoding: "messagepack" } they are MessagePack.
// A node that speaks TLS has a URL with wss. Browsers trust what they trust for pages; Node.js besides what NODE_EXTRA_CA_CERTS names.
// In a Node.js without a global WebSocket (before 22) give one, such as that of the package ws: { WebSocket }.

const PATH = "/v1/client";
/** A node must greet, and open the session through the log, within this time (ms). */
const WELCOME_MS = 3000;
/** A node that said nothing for this long is asked something; without an answer for as long again, it is left. */
const SILENCE_MS = 2000;
const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 500;
/** The pause before a request is said again whose outcome is unknown with a code that is not known here; it doubles. */
const STRANGE_PAUSE_MS = 100;
const LONGEST_STRANGE_PAUSE_MS = 5000;
/** So many connections in a row may end with a message that can't be read. Then what waited for more is unknown. */
const MAX_UNREADABLE = 3;

const ENCODINGS = {
  json: { encode: JSON.stringify, decode: JSON.parse },
  messagepack: { encode: toMessagePack, decode: (buffer) => fromMessagePack(new Uint8Array(buffer)) },
};

/**
 * Certainly not executed. `code` is one of the stable codes, perhaps of a later version, or "not_reached": it was never sent.
 * `index` names the command of an atomic bulk that failed. `error` is all that the node said of it, as it came.
 */
export class Refused extends Error {
  constructor(error) {
    super(`${error.code}: ${error.message}`);
    Object.assign(this, { name: "Refused", code: error.code, index: error.index, error });
  }
}

/** Nobody knows whether it was executed. `answer` is the node's last message about it, as it came, if there was one. */
export class Unknown extends Error {
  constructor(why, answer) {
    super(`outcome unknown: ${why}`);
    Object.assign(this, { name: "Unknown", answer });
  }
}

export class RabiaBank {
  #urls; #token; #turn = 0; #codec; #WebSocket; #timeout;
  #socket = null; #ready = false; #closed = false; #heard = 0; #asked = false; #timer = null;
  /** Whether commands can be said on this connection; and whether its session was found to be gone. */
  #inSession = false; #expired = false;
  #key = randomKey(); #session = null; #cluster = null; #node = null;
  #refusals = 0; #last = 0; #pause = FIRST_PAUSE_MS; #failures = 0; #failure = null;
  #pending = new Map(); #feeds = new Map(); #watchers = new Set();

  /** urls: the nodes of one cluster, tried in turn. token: who the client is. timeoutMs: how long a call may take, retries included. */
  constructor(urls, { token, timeoutMs = 10_000, encoding = "json", WebSocket = globalThis.WebSocket } = {}) {
    if (!urls?.length) throw new TypeError("RabiaBank needs the URL of at least one node");
    if (!Object.hasOwn(ENCODINGS, encoding)) throw new TypeError(`the encoding is json or messagepack, not ${encoding}`);
    if (!WebSocket) throw new TypeError("this runtime has no WebSocket: give one in the options");
    this.#urls = urls.map((url) => (new URL(url).pathname === "/" ? new URL(PATH, url).href : url));
    this.#token = token;
    this.#codec = ENCODINGS[encoding];
    this.#WebSocket = WebSocket;
    this.#timeout = timeoutMs;
    this.#connect();
    this.#timer = setInterval(() => this.#check(), 100);
  }

  // ----- commands: what they resolve to is the `ok` of the answer, with `slot`, `index` and `replayed` beside it -----

  /** settings: { asset, min_balance, max_balance, code, name }, of which any may be absent. */
  async createAccount(account_id, initial_balance = 0, settings = {}) {
    return this.command({ create_account: { account_id, initial_balance: whole(initial_balance), ...settings } });
  }
  /** change: { min_balance, max_balance, status, code, name }; what is absent stays. */
  async setAccount(account_id, change) {
    return this.command({ set_account: { account_id, ...change } });
  }
  async createAsset(asset, scale, limit) {
    return this.command({ create_asset: { asset, scale: whole(scale), limit: whole(limit) } });
  }
  async deposit(account_id, amount) {
    return this.command({ deposit: { account_id, amount: whole(amount) } });
  }
  async withdraw(account_id, amount) {
    return this.command({ withdraw: { account_id, amount: whole(amount) } });
  }
  async transfer(from_account, to_account, amount) {
    return this.command({ transfer: { from_account, to_account, amount: whole(amount) } });
  }
  /** Several commands in one step. atomic: all or none. */
  async bulk(commands, { atomic }) {
    return this.command({ bulk: { commands, atomic } });
  }
  /** Any command, as the wire format has it. */
  async command(command) {
    return this.#ask({ command }, true);
  }

  // ----- queries. read: "linearizable" (default), "local", or { at_least: slot } -----

  async balance(account_id, options) {
    return (await this.query({ get_balance: { account_id } }, options)).balance;
  }
  async account(account_id, options) {
    return (await this.query({ get_account: { account_id } }, options)).account;
  }
  /** All assets, the cluster's own one first. */
  async assets(options) {
    return (await this.query({ list_assets: {} }, options)).assets;
  }
  /** Of the cluster's own asset, or of the one in the options. */
  async statistics({ asset, ...options } = {}) {
    return (await this.query({ get_statistics: { asset } }, options)).statistics;
  }
  async transaction(transaction_id, options) {
    return (await this.query({ get_transaction: { transaction_id } }, options)).transaction;
  }
  /** The state of the node that is connected. */
  async status() {
    return (await this.query({ get_status: {} }, { read: "local" })).status;
  }
  /** All transactions that meet the filter, newest first, page by page: `for await (const transaction of bank.history())`. */
  async *history(filter = {}, options) {
    for (let before = filter.before; ; ) {
      const page = await this.query({ get_transaction_history: { ...filter, before } }, options);
      yield* page.transactions;
      if (page.next === undefined || page.next === null) return;
      before = page.next;
    }
  }
  /** All accounts by id, page by page; of the class `code` in the options, if there is one. */
  async *accounts({ code, ...options } = {}) {
    for (let after; ; ) {
      const page = await this.query({ list_accounts: { after, code } }, options);
      yield* page.accounts;
      if (page.next === undefined || page.next === null) return;
      after = page.next;
    }
  }
  /** Any query, as the wire format has it. */
  async query(query, { read = "linearizable" } = {}) {
    return this.#ask({ query, read }, false);
  }

  // ----- subscriptions -----

  /**
   * Calls `tell` with every transaction that is applied from now on, or from the id `from` on: each once and in order, also
   * over lost connections. The feed has ended when `fail` is called: with a `Refused` if there is no such account, with an
   * `Unknown` if what comes next can't be read by this module.
   */
  subscribe({ account_id, min_amount, asset, from } = {}, tell, fail = () => {}) {
    const next = from === undefined ? undefined : whole(from);
    const feed = { account_id, asset, min_amount: min_amount === undefined ? undefined : whole(min_amount), next, tell, fail, ended: false, unreadable: 0 };
    this.#follow(feed);
    return {
      close: () => {
        feed.ended = true;
        for (const [number, other] of this.#feeds) {
          if (other !== feed) continue;
          this.#feeds.delete(number);
          if (this.#ready) this.#say({ unsubscribe: number });
        }
      },
    };
  }

  // ----- the connection -----

  /** Calls `tell` with { connected, node, why } now and whenever it changes. Why it is not connected: null before it was tried. */
  watchConnection(tell) {
    this.#watchers.add(tell);
    tell(this.connection);
  }
  get connection() {
    return { connected: this.#ready, node: this.#node, why: this.#ready ? null : this.#failure };
  }

  /** Ends the session and the connection. What has no answer yet rejects: with Unknown if it was sent. */
  async close() {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    for (const [number, request] of this.#pending) this.#giveUp(number, request, "the client was closed");
    this.#feeds.clear();
    const socket = this.#socket;
    if (!socket || socket.readyState === 3) return;
    await new Promise((resolve) => {
      const enough = setTimeout(resolve, 1000);
      socket.onclose = () => resolve(clearTimeout(enough));
      if (this.#ready) this.#say({ goodbye: {} });
      else resolve(clearTimeout(enough));
    });
    socket.close();
  }

  #connect() {
    const url = this.#urls[this.#turn % this.#urls.length];
    const socket = new this.#WebSocket(url);
    socket.binaryType = "arraybuffer";
    const lost = (why, unreadable) => this.#socket === socket && this.#lost(`${url}: ${why}`, unreadable);
    socket.onopen = () => {
      if (this.#socket !== socket) return;
      this.#inSession = this.#wantsSession();
      const open = this.#session ? { session: { number: this.#session, key: this.#key } } : { open: { key: this.#key } };
      this.#say({ hello: { version: 2, ...(this.#token && { token: this.#token }), ...(this.#inSession && open) } });
    };
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return;
      let message;
      try {
        message = this.#codec.decode(data);
      } catch (error) {
        return lost(`a message that can't be read: ${error}`, true);
      }
      this.#heard = Date.now();
      this.#asked = false;
      this.#hear(message, lost);
    };
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => lost(`closed (${code}${reason ? `, ${reason}` : ""})`);
    this.#socket = socket;
    this.#inSession = this.#expired = false;
    this.#heard = Date.now();
  }

  /** Queries and feeds need none: they work with a node alone, and leave nothing in the log. */
  #wantsSession() {
    return this.#session !== null || [...this.#pending.values()].some(({ command }) => command);
  }

  #leave() {
    const socket = this.#socket;
    this.#socket = null;
    this.#ready = false;
    socket?.close();
    // What was said may have been executed.
    for (const [, request] of this.#pending) {
      request.doubtful ||= request.said;
      request.said = false;
    }
  }

  /** A session is opened by the first message of a connection, and this one was opened without. */
  #reconnectForSession() {
    this.#leave();
    this.#connect();
  }

  #lost(why, unreadable = false) {
    if (unreadable) this.#noteUnreadable(why);
    if (this.#expired) this.#loseSession("the session has expired");
    this.#leave();
    this.#failure = why;
    this.#node = null;
    this.#changed();
    if (this.#closed) return;
    this.#turn += 1;
    this.#failures += 1;
    // All nodes are tried before there is a pause.
    const pause = this.#failures % this.#urls.length ? 0 : this.#nextPause();
    setTimeout(() => this.#closed || this.#socket || this.#connect(), pause);
  }

  /** Nobody who asks for more of what he does not understand gets anything else. */
  #noteUnreadable(why) {
    for (const [number, request] of this.#pending) {
      if (!request.said || ++request.unreadable < MAX_UNREADABLE) continue;
      this.#pending.delete(number);
      request.reject(new Unknown(why));
    }
    for (const [number, feed] of this.#feeds) this.#isStrange(number, feed, why);
  }

  /** Counts a message that can't be read against a feed. True: that was one too many, and it has ended. */
  #isStrange(number, feed, why) {
    if (++feed.unreadable < MAX_UNREADABLE) return false;
    this.#feeds.delete(number);
    feed.ended = true;
    if (this.#ready) this.#say({ unsubscribe: number });
    feed.fail(new Unknown(why));
    return true;
  }

  #nextPause() {
    const pause = this.#pause * (0.5 + Math.random() / 2);
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE_MS);
    return pause;
  }

  #changed() {
    for (const tell of this.#watchers) tell(this.connection);
  }

  #say(message) {
    if (this.#socket?.readyState === 1) this.#socket.send(this.#codec.encode(message));
  }

  // ----- what the node says -----

  #hear(message, lost) {
    if (!isObject(message)) return lost("a message that can't be read", true);
    if (isObject(message.welcome)) return this.#welcomed(message.welcome, lost);
    if (isValue(message.subscription)) return this.#fed(message, lost);
    if (isValue(message.request)) return this.#answered(message, lost);
    if (isValue(message.error)) {
      // The key to open a session with is used up.
      if (message.error.code === "session_expired") this.#expired = true;
      if (["not_authorised", "client_too_old"].includes(message.error.code)) this.#turnedAway(message.error);
      return lost(message.error.message);
    }
    // A message of a kind that is not known here is not meant for this module.
  }

  #welcomed({ cluster, node, session, opened }, lost) {
    this.#cluster ??= cluster;
    if (cluster !== this.#cluster) return lost("a node of another cluster");
    if (this.#inSession) {
      if (!session || (this.#session && session !== this.#session)) return lost("the node opened no session");
      // It is a new one: what may have been executed in another will never have an answer.
      if (opened) this.#settleDoubtful("the session is a new one");
      this.#session = session;
    } else if (this.#wantsSession()) {
      return this.#reconnectForSession();
    }
    this.#refusals = 0;
    this.#node = node;
    this.#ready = true;
    this.#changed();
    for (const [number, request] of this.#pending) {
      if (request.notBefore <= Date.now()) this.#sayRequest(number, request);
    }
    // The numbers of a new connection must not be those of an old one, whose answers may still be under way.
    const feeds = [...this.#feeds.values()];
    this.#feeds.clear();
    for (const feed of feeds) this.#follow(feed);
  }

  #answered(message, lost) {
    const { request: number, slot, index, ok, error, replayed } = message;
    const readable = isValue(ok) ? isObject(ok) && !isValue(error) : isError(error);
    const unreadable = "the node's answer can't be read";
    const feed = this.#feeds.get(number);
    if (feed && !this.#pending.has(number)) {
      if (!readable || (ok && !Number.isSafeInteger(ok.from))) return this.#isStrange(number, feed, unreadable) || lost(unreadable);
      if (ok) return void (feed.next = ok.from);
      this.#feeds.delete(number);
      if (!passing(error.code)) return feed.fail(new Refused(error));
      setTimeout(() => this.#closed || feed.ended || this.#follow(feed), this.#nextPause());
      return;
    }
    const request = this.#pending.get(number);
    if (!request) return;
    request.unreadable = 0;
    if (!readable) {
      this.#pending.delete(number);
      return request.reject(new Unknown(unreadable, message));
    }
    if (ok) {
      this.#pause = FIRST_PAUSE_MS;
      this.#failures = 0;
      this.#pending.delete(number);
      return request.resolve({ ...ok, slot, index, replayed });
    }
    const attempt = passing(error.code) || error.code === "session_expired" || error.code === "request_acknowledged";
    if (error.outcome === "refused" && !attempt) {
      this.#pending.delete(number);
      request.reject(new Refused(error));
    } else if (error.code === "session_expired") {
      // Of its only attempt this says that it was not executed: it goes on in a new session. What else was said on this
      // connection will be answered alike.
      request.said = false;
      this.#expired = true;
      if (![...this.#pending.values()].some(({ command, said }) => command && said)) lost(error.message);
    } else if (error.code === "request_acknowledged") {
      this.#pending.delete(number);
      request.reject(new Unknown(error.message, message));
    } else if (!attempt) {
      // Unknown, for a reason that is not known here: it is asked again, but not pressed for.
      const pause = request.pause * (0.5 + Math.random() / 2);
      Object.assign(request, { doubtful: true, said: false, last: error, notBefore: Date.now() + pause });
      request.pause = Math.min(2 * request.pause, LONGEST_STRANGE_PAUSE_MS);
      setTimeout(() => this.#ready && this.#pending.has(number) && !request.said && this.#sayRequest(number, request), pause);
    } else {
      // It speaks of this attempt alone: ask again, with the same number.
      request.doubtful ||= error.outcome === "unknown";
      request.said = false;
      request.last = error;
      if (error.code !== "busy" && this.#urls.length > 1) return lost(error.message);
      setTimeout(() => this.#ready && this.#pending.has(number) && this.#sayRequest(number, request), this.#nextPause());
    }
  }

  /** What may have been executed in the session will never have an answer. The rest goes on in a new session. */
  #loseSession(why) {
    this.#session = null;
    this.#key = randomKey();
    this.#settleDoubtful(why);
  }

  #settleDoubtful(why) {
    for (const [number, request] of this.#pending) {
      if (request.command && (request.said || request.doubtful)) {
        this.#pending.delete(number);
        request.reject(new Unknown(why));
      }
    }
  }

  /** A node does not serve this client. Once each has said so in turn, nothing that waits will be done for it. */
  #turnedAway(error) {
    if (++this.#refusals < this.#urls.length) return;
    this.#refusals = 0;
    this.#settleDoubtful(error.message);
    for (const [number, request] of this.#pending) {
      this.#pending.delete(number);
      request.reject(new Refused(error));
    }
  }

  // ----- requests -----

  #ask(message, command) {
    if (this.#closed) throw new Refused({ code: "not_reached", message: "the client was closed" });
    // What is said again must be what was said first, whatever the caller does to it meanwhile.
    const exact = exactCopy(message);
    return new Promise((resolve, reject) => {
      const number = ++this.#last;
      const request = { message: exact, command, resolve, reject, said: false, doubtful: false };
      Object.assign(request, { unreadable: 0, notBefore: 0, pause: STRANGE_PAUSE_MS });
      request.deadline = Date.now() + this.#timeout;
      this.#pending.set(number, request);
      if (this.#ready) this.#sayRequest(number, request);
    });
  }

  #sayRequest(number, request) {
    if (request.command && this.#expired) return;
    if (request.command && !this.#inSession) return this.#reconnectForSession();
    const message = { request: number, ...request.message };
    // Below the oldest request without an outcome, everything was heard.
    if (request.command) message.acknowledged = this.#pending.keys().next().value - 1;
    request.said = true;
    this.#say(message);
  }

  #check() {
    const now = Date.now();
    for (const [number, request] of this.#pending) {
      if (now >= request.deadline) this.#giveUp(number, request, request.said ? "no answer in time" : this.#failure);
    }
    const silent = now - this.#heard;
    const wanted = this.#pending.size + this.#feeds.size > 0;
    if (!this.#socket) return;
    if (!this.#ready && silent > WELCOME_MS) return this.#lost("no welcome in time");
    if (!wanted || !this.#ready) return;
    if (silent > 2 * SILENCE_MS) return this.#lost("no sign of life");
    if (silent > SILENCE_MS && !this.#asked) {
      // Any answer is a sign of life; nobody waits for this one.
      this.#asked = true;
      this.#say({ request: ++this.#last, query: { get_status: {} }, read: "local" });
    }
  }

  /** It has no answer that settles it: what is known of it are its attempts. */
  #giveUp(number, { said, doubtful, last, reject }, why) {
    this.#pending.delete(number);
    if (said || doubtful) reject(new Unknown(last?.message ?? why ?? "no answer in time", last && { error: last }));
    else reject(new Refused(last ?? { code: "not_reached", message: why ?? "no node answered in time" }));
  }

  // ----- feeds -----

  #follow(feed) {
    const number = ++this.#last;
    this.#feeds.set(number, feed);
    const { account_id, min_amount, asset, next: from } = feed;
    if (this.#ready) this.#say({ request: number, subscribe: { account_id, min_amount, asset, from } });
  }

  #fed({ subscription, transaction, reached }, lost) {
    const feed = this.#feeds.get(subscription);
    if (!feed) return;
    const id = isValue(reached) ? reached : transaction?.transaction_id;
    if (!Number.isSafeInteger(id)) {
      const why = "a message of a feed can't be read";
      return this.#isStrange(subscription, feed, why) || lost(why);
    }
    feed.unreadable = 0;
    if (isValue(reached)) return void (feed.next = reached + 1);
    const everything = feed.account_id === undefined && feed.min_amount === undefined && feed.asset === undefined;
    if (id < feed.next || (everything && id > feed.next)) {
      return lost(`transaction ${id} came where ${feed.next} was to come`);
    }
    feed.next = id + 1;
    feed.tell(transaction);
  }
}

function passing(code) {
  return ["busy", "no_quorum", "not_yet_applied", "stopping", "too_many_sessions"].includes(code);
}

/** A field that is null is one that is absent. */
function isValue(value) {
  return value !== undefined && value !== null;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isError(error) {
  return isObject(error) && typeof error.code === "string" && ["refused", "unknown"].includes(error.outcome);
}

/** Where it is no whole number that JavaScript holds exactly, the caller has made a mistake: nothing is sent. */
function whole(amount) {
  const number = typeof amount === "bigint" ? Number(amount) : amount;
  if (!Number.isSafeInteger(number)) throw new RangeError(`${amount} is no whole number of minor units`);
  return number;
}

/** A copy without a BigInt and without a number that may have been rounded. */
function exactCopy(value) {
  if (typeof value === "bigint" || Number.isInteger(value)) return whole(value);
  if (Array.isArray(value)) return value.map(exactCopy);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, exactCopy(field)]));
}

function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ----- MessagePack: the part of it that the protocol uses -----

function toMessagePack(message) {
  const bytes = [];
  const put = (tag, value, length) => {
    bytes.push(tag);
    for (let at = length - 1; at >= 0; at--) bytes.push(Math.floor(value / 256 ** at) % 256);
  };
  /** The shortest form of a length or number: what fits into the tag itself, else the tag for 1, 2, 4 or 8 bytes. */
  const size = (value, small, fixed, tags) => {
    if (value < small) return put(fixed + value, 0, 0);
    const width = tags.findIndex((tag, at) => tag && value < 256 ** (1 << at));
    put(tags[width], value, 1 << width);
  };
  const write = (value) => {
    if (value === null || value === undefined) return put(0xc0, 0, 0);
    if (typeof value === "boolean") return put(value ? 0xc3 : 0xc2, 0, 0);
    if (typeof value === "number") {
      if (Number.isSafeInteger(value) && value >= 0) return size(value, 0x80, 0, [0xcc, 0xcd, 0xce, 0xcf]);
      bytes.push(0xcb, ...new Uint8Array(float64(value)));
    } else if (typeof value === "string") {
      const text = new TextEncoder().encode(value);
      size(text.length, 32, 0xa0, [0xd9, 0xda, 0xdb]);
      for (const byte of text) bytes.push(byte);
    } else if (Array.isArray(value)) {
      size(value.length, 16, 0x90, [0, 0xdc, 0xdd]);
      value.forEach(write);
    } else {
      const fields = Object.entries(value).filter(([, field]) => field !== undefined);
      size(fields.length, 16, 0x80, [0, 0xde, 0xdf]);
      fields.flat().forEach(write);
    }
  };
  write(message);
  return new Uint8Array(bytes);
}

function float64(number) {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, number);
  return view.buffer;
}

function fromMessagePack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const take = (length) => {
    at += length;
    return at - length;
  };
  const unsigned = (length) => {
    let value = 0;
    for (const end = at + length; at < end; at++) value = value * 256 + view.getUint8(at);
    return whole(value);
  };
  const signed = (length) => whole(BigInt.asIntN(8 * length, BigInt(`0x${hex(length)}`)));
  const hex = (length) => {
    const from = take(length);
    if (at > bytes.length) throw new RangeError("the message ends early");
    return Array.from(bytes.subarray(from, at), (byte) => byte.toString(16).padStart(2, "0")).join("");
  };
  const text = (length) => {
    const from = take(length);
    if (at > bytes.length) throw new RangeError("the message ends early");
    return new TextDecoder().decode(bytes.subarray(from, at));
  };
  const list = (length) => Array.from({ length }, read);
  const map = (length) => Object.fromEntries(Array.from({ length }, () => [read(), read()]));
  function read() {
    const tag = view.getUint8(take(1));
    if (tag < 0x80) return tag;
    if (tag < 0x90) return map(tag - 0x80);
    if (tag < 0xa0) return list(tag - 0x90);
    if (tag < 0xc0) return text(tag - 0xa0);
    if (tag === 0xc0) return null;
    if (tag === 0xc2 || tag === 0xc3) return tag === 0xc3;
    if (tag >= 0xc4 && tag <= 0xc6) return hex(unsigned(1 << (tag - 0xc4)));
    if (tag === 0xca) return view.getFloat32(take(4));
    if (tag === 0xcb) return view.getFloat64(take(8));
    if (tag >= 0xd0 && tag <= 0xd3) return signed(1 << (tag - 0xd0));
    if (tag >= 0xe0) return tag - 0x100;
    if (tag >= 0xcc && tag <= 0xcf) return unsigned(1 << (tag - 0xcc));
    if (tag >= 0xd9 && tag <= 0xdb) return text(unsigned(1 << (tag - 0xd9)));
    if (tag === 0xdc || tag === 0xdd) return list(unsigned(tag === 0xdc ? 2 : 4));
    if (tag === 0xde || tag === 0xdf) return map(unsigned(tag === 0xde ? 2 : 4));
    throw new TypeError(`0x${tag.toString(16)} is no MessagePack of this protocol`);
  }
  const message = read();
  if (at !== bytes.length) throw new RangeError("something stands behind the message");
  return message;
}

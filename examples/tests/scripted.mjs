// What the test `outside` runs in Node.js: the module against a node that the test plays by hand, in both encodings.
import assert from "node:assert/strict";
import { RabiaBank, Refused, Unknown } from "../web/rabia-bank.mjs";

const CLUSTER = "00112233445566778899aabbccddeeff";

/** The WebSockets that were opened, in turn, each to be accepted by the script. */
class Sockets {
  #opened = [];
  #wanted = [];

  constructor() {
    const sockets = this;
    this.WebSocket = class {
      readyState = 0;
      #said = [];
      #listener = null;

      constructor(url) {
        this.url = url;
        const wanted = sockets.#wanted.shift();
        if (wanted) wanted(this);
        else sockets.#opened.push(this);
      }
      send(message) {
        if (message && Buffer.from(message).includes("goodbye")) queueMicrotask(() => this.onclose({ code: 1000 }));
        if (this.#listener) this.#listener(message);
        else this.#said.push(message);
        this.#listener = null;
      }
      close() {
        this.readyState = 3;
        this.send(null);
      }
      /** What the client says next, as it came; null once it has closed. */
      async raw() {
        return this.#said.length ? this.#said.shift() : new Promise((resolve) => (this.#listener = resolve));
      }
      async hear() {
        const text = await this.raw();
        return text === null ? null : JSON.parse(text);
      }
      say(message) {
        this.onmessage({ data: typeof message === "object" && !(message instanceof ArrayBuffer) ? JSON.stringify(message) : message });
      }
      ok(request, ok = {}) {
        this.say({ request, slot: 9, ok, replayed: false });
      }
      fail(request, code, outcome) {
        this.say({ request, error: { code, message: "as the test says", outcome } });
      }
      drop() {
        this.readyState = 3;
        this.onclose({ code: 1006, reason: "" });
      }
    };
  }

  async next() {
    return this.#opened.length ? this.#opened.shift() : new Promise((resolve) => this.#wanted.push(resolve));
  }

  /** Greets the next connection; `session` is what its hello names or is given, null where it asks for none. */
  async greet(session = 7) {
    const socket = await this.next();
    socket.readyState = 1;
    socket.onopen();
    const { hello } = await socket.hear();
    const number = hello.session?.number ?? (hello.open ? session : undefined);
    socket.say({ welcome: { node: 1, cluster: CLUSTER, session: number, applied_slot: 3 } });
    return { socket, hello };
  }
}

function start(options = {}) {
  const sockets = new Sockets();
  const bank = new RabiaBank(["ws://one", "ws://two"], { WebSocket: sockets.WebSocket, timeoutMs: 5_000, ...options });
  return { sockets, bank };
}

const tests = {
  async "queries and feeds need no session, and the first command opens one"() {
    const { sockets, bank } = start();
    const balance = bank.balance("a", { read: "local" });
    let { socket, hello } = await sockets.greet();
    assert.deepEqual(hello, { version: 2 });
    assert.deepEqual(await socket.hear(), { request: 1, query: { get_balance: { account_id: "a" } }, read: "local" });
    socket.ok(1, { balance: 5 });
    assert.equal(await balance, 5);
    const paid = bank.deposit("a", 1);
    ({ socket, hello } = await sockets.greet());
    assert.equal(socket.url, "ws://one/v1/client", "the node was not at fault");
    assert.match(hello.open.key, /^[0-9a-f]{32}$/);
    const { request, acknowledged } = await socket.hear();
    assert.deepEqual([request, acknowledged], [2, 1]);
    socket.ok(2);
    await paid;
    await bank.close();
  },

  async "what has no answer is said again at the next node, in the same session with the same number"() {
    const { sockets, bank } = start();
    const command = { deposit: { account_id: "a", amount: 1n } };
    const paid = bank.command(command);
    const first = await sockets.greet();
    const said = await first.socket.hear();
    command.deposit.amount = 1_000; // What is said again is what was said first.
    first.socket.drop();
    const second = await sockets.greet();
    assert.equal(second.socket.url, "ws://two/v1/client");
    assert.deepEqual(second.hello.session, { number: 7, key: first.hello.open.key });
    assert.deepEqual(await second.socket.hear(), said);
    second.socket.say({ request: 1, slot: 9, ok: { transaction: {} }, replayed: true });
    assert.equal((await paid).replayed, true);
    await bank.close();
  },

  async "a busy node is asked again, and its refusal says nothing of an earlier attempt"() {
    const { sockets, bank } = start({ timeoutMs: 400 });
    const never = assert.rejects(bank.deposit("a", 1), (error) => error instanceof Refused && error.code === "busy");
    let { socket } = await sockets.greet();
    const refuse = async () => {
      for (let said; (said = await socket.hear()); ) socket.fail(said.request, "busy", "refused");
    };
    refuse();
    await never;
    socket.drop();
    ({ socket } = await sockets.greet());
    const perhaps = assert.rejects(bank.deposit("a", 2), Unknown);
    await socket.hear();
    socket.drop();
    ({ socket } = await sockets.greet());
    refuse();
    await perhaps;
    await bank.close();
  },

  async "only attempts that found no session go on in a new one"() {
    const { sockets, bank } = start();
    const calls = [1, 2, 3].map((amount) => bank.deposit("a", amount));
    const first = await sockets.greet();
    for (const number of [1, 2, 3]) assert.equal((await first.socket.hear()).request, number);
    first.socket.fail(3, "session_expired", "unknown");
    const later = bank.deposit("a", 4);
    first.socket.fail(1, "session_expired", "unknown");
    first.socket.drop(); // and with it the answer to 2
    await assert.rejects(calls[1], Unknown);
    const second = await sockets.greet(8);
    assert.notEqual(second.hello.open.key, first.hello.open.key);
    for (const number of [1, 3, 4]) {
      assert.equal((await second.socket.hear()).request, number);
      second.socket.ok(number);
    }
    await Promise.all([calls[0], calls[2], later]);
    await bank.close();
  },

  async "a repeated command whose session has expired is unknown"() {
    const { sockets, bank } = start();
    const call = bank.deposit("a", 1);
    const { socket } = await sockets.greet();
    await socket.hear();
    socket.drop();
    const second = await sockets.greet();
    await second.socket.hear();
    second.socket.fail(1, "session_expired", "unknown");
    await assert.rejects(call, Unknown);
    await bank.close();
  },

  async "closing tells what was never sent from what may have been executed"() {
    const { sockets, bank } = start();
    const said = bank.deposit("a", 1);
    const { socket } = await sockets.greet();
    await socket.hear();
    socket.drop();
    const unsaid = bank.deposit("a", 2);
    const both = Promise.allSettled([said, unsaid]);
    await bank.close();
    const [first, second] = await both;
    assert.ok(first.reason instanceof Unknown);
    assert.ok(second.reason instanceof Refused && second.reason.code === "not_reached");
    await assert.rejects(bank.deposit("a", 3), (error) => error instanceof Refused && error.code === "not_reached");
  },

  async "a number that JavaScript may have rounded is never sent, and the client goes on"() {
    const { sockets, bank } = start();
    const query = bank.balance("a");
    const { socket } = await sockets.greet();
    await socket.hear();
    for (const amount of [2 ** 53, 2n ** 53n, 1e300, -(2n ** 60n)]) {
      await assert.rejects(bank.command({ deposit: { account_id: "a", amount } }), RangeError);
      await assert.rejects(bank.bulk([{ deposit: { account_id: "a", amount } }], { atomic: true }), RangeError);
      await assert.rejects(bank.deposit("a", amount), RangeError);
    }
    for (const amount of [0.5, "5", null, Number.NaN]) await assert.rejects(bank.deposit("a", amount), RangeError);
    assert.throws(() => bank.subscribe({ from: 2 ** 53 }, () => {}), RangeError);
    socket.ok(1, { balance: 2 ** 53 - 1 });
    assert.equal(await query, 2 ** 53 - 1);
    await bank.close();
  },

  async "a feed goes on behind what was seen or reached, and notices a gap"() {
    const { sockets, bank } = start();
    const seen = [];
    const feed = bank.subscribe({ from: 4 }, ({ transaction_id }) => seen.push(transaction_id));
    let { socket } = await sockets.greet();
    let { request, subscribe } = await socket.hear();
    assert.deepEqual(subscribe, { from: 4 });
    const tell = (id) => socket.say({ subscription: request, transaction: { transaction_id: id } });
    socket.ok(request, { from: 4 });
    tell(4);
    tell(6);
    assert.deepEqual([socket.readyState, seen], [3, [4]]);
    ({ socket } = await sockets.greet());
    ({ request, subscribe } = await socket.hear());
    assert.deepEqual(subscribe, { from: 5 });
    socket.ok(request, { from: 5 });
    tell(5);
    tell(6);
    socket.say({ subscription: request, reached: 50 });
    socket.drop();
    ({ socket } = await sockets.greet());
    ({ request, subscribe } = await socket.hear());
    assert.deepEqual(subscribe, { from: 51 });
    // One that waits to be asked for again can be closed.
    socket.fail(request, "busy", "refused");
    feed.close();
    await new Promise((resolve) => setTimeout(resolve, 600));
    const quiet = bank.balance("a");
    const next = await socket.hear();
    assert.ok(next.query, `the feed was closed: ${JSON.stringify(next)}`);
    socket.ok(next.request, { balance: 0 });
    await quiet;
    assert.deepEqual(seen, [4, 5, 6]);
    await bank.close();
  },

  async "words and fields of a later version are handed out, and a code is what its outcome says"() {
    const { sockets, bank } = start({ timeoutMs: 2_000 });
    const hold = { transaction_id: 1, type: "hold", reference: "auth-9", legs: [{ amount: -5 }] };
    const held = bank.command({ hold: { from_account: "a", amount: 5 } });
    const { socket } = await sockets.greet();
    await socket.hear();
    socket.say({ notice: { text: "closed on Sunday" } });
    socket.say({ request: 1, slot: 9, index: 4, ok: { transaction: hold }, replayed: false, trace: 7 });
    assert.deepEqual(await held, { transaction: hold, slot: 9, index: 4, replayed: false });
    const refused = assert.rejects(bank.deposit("a", 1), (error) => {
      assert.deepEqual([error.name, error.code, error.error.hold], ["Refused", "hold_expired", 77]);
      return true;
    });
    await socket.hear();
    socket.say({ request: 2, slot: 9, error: { code: "hold_expired", message: "late", outcome: "refused", hold: 77 } });
    await refused;
    const unknown = assert.rejects(bank.deposit("a", 1), (error) => error instanceof Unknown && error.answer.error.code === "members_too_old");
    let asked = 0;
    let over = false;
    unknown.then(() => (over = true));
    while (!over) {
      const message = await Promise.race([socket.hear(), unknown]);
      if (message?.request !== 3) continue;
      asked += 1;
      socket.fail(3, "members_too_old", "unknown");
    }
    assert.ok(asked > 1 && asked <= 6, `asked ${asked} times in 2 s`);
    await bank.close();
  },

  async "an answer that can't be read is unknown and not asked for again"() {
    const { sockets, bank } = start();
    const error = { code: "busy", message: "" };
    const answers = [{ deferred: {} }, { error: { ...error, outcome: "perhaps" } }, { error }, { ok: 7 }, { ok: {}, error: { ...error, outcome: "refused" } }];
    let socket;
    for (const [at, answer] of answers.entries()) {
      const call = assert.rejects(bank.deposit("a", 1), (unknown) => {
        assert.ok(unknown instanceof Unknown);
        assert.deepEqual(unknown.answer, { request: at + 1, ...answer });
        return true;
      });
      socket ??= (await sockets.greet()).socket;
      assert.equal((await socket.hear()).request, at + 1);
      socket.say({ request: at + 1, ...answer });
      await call;
    }
    // What is no message at all may be the fault of a connection, but not of three.
    const call = assert.rejects(bank.deposit("a", 1), Unknown);
    for (const nothing of ["{", "[1]", "7"]) {
      assert.equal((await socket.hear()).request, answers.length + 1);
      socket.say(nothing);
      if (nothing !== "7") ({ socket } = await sockets.greet());
    }
    await call;
    await bank.close();
  },

  async "a feed of what can't be read ends, and does not go round in circles"() {
    const { sockets, bank } = start();
    const seen = [];
    let end;
    const ended = new Promise((resolve) => (end = resolve));
    bank.subscribe({}, (transaction) => seen.push(transaction), end);
    let connections = 0;
    for (; connections < 3; connections++) {
      const { socket } = await sockets.greet();
      const { request, subscribe } = await socket.hear();
      socket.ok(request, { from: subscribe.from ?? 1 });
      if (connections === 0) socket.say({ subscription: request, transaction: { transaction_id: 1, type: "hold", hold: 77 } });
      else assert.equal(subscribe.from, 2);
      socket.say({ subscription: request, changes: [] });
    }
    assert.ok((await ended) instanceof Unknown);
    assert.deepEqual(seen, [{ transaction_id: 1, type: "hold", hold: 77 }]);
    await bank.close();
  },

  async "a node of another cluster, and one that says what can't be read, are left"() {
    const { sockets, bank } = start();
    const call = bank.balance("a");
    const { socket } = await sockets.greet();
    await socket.hear();
    socket.say("{");
    assert.equal(socket.readyState, 3);
    const stranger = await sockets.next();
    stranger.readyState = 1;
    stranger.onopen();
    stranger.say({ welcome: { node: 1, cluster: "ff".repeat(16), applied_slot: 3 } });
    assert.equal(stranger.readyState, 3);
    const third = await sockets.greet();
    assert.equal(third.socket.url, "ws://one/v1/client");
    third.socket.ok((await third.socket.hear()).request, { balance: 1 });
    assert.equal(await call, 1);
    await bank.close();
  },

  async "MessagePack holds whole numbers exactly, both ways"() {
    const { sockets, bank } = start({ encoding: "messagepack" });
    const amounts = [0, 127, 128, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 1, 2 ** 53 - 1];
    const name = "ä".repeat(20) + "€";
    const socket = await sockets.next();
    socket.readyState = 1;
    socket.onopen();
    assert.deepEqual(Buffer.from(await socket.raw()), Buffer.from("81a568656c6c6f81a776657273696f6e02", "hex"));
    // {"welcome": {"node": 1, "cluster": CLUSTER, "applied_slot": 3}}
    const pack = (text) => Buffer.concat([Buffer.from([0xd9, text.length]), Buffer.from(text)]).toString("hex");
    const from = (hex) => new Uint8Array(Buffer.from(hex, "hex")).buffer;
    socket.say(from(`81${pack("welcome")}83${pack("node")}01${pack("cluster")}${pack(CLUSTER)}${pack("applied_slot")}03`));
    const hex = (number) => number.toString(16).padStart(16, "0");
    for (const [at, amount] of amounts.entries()) {
      const call = bank.query({ x: [amount, name, true, null] });
      const said = Buffer.from(await socket.raw()).toString("hex");
      const shortest =
        amount < 128 ? hex(amount).slice(-2)
        : amount < 256 ? `cc${hex(amount).slice(-2)}`
        : amount < 65_536 ? `cd${hex(amount).slice(-4)}`
        : amount < 2 ** 32 ? `ce${hex(amount).slice(-8)}`
        : `cf${hex(amount)}`;
      assert.ok(said.includes(`a17894${shortest}d92b`), `${amount} in ${said}`);
      // The longest form and a float are taken, too.
      const float = Buffer.alloc(8);
      float.writeDoubleBE(amount);
      socket.say(from(`82${pack("request")}${hex(at + 1).slice(-2)}${pack("ok")}82${pack("a")}cf${hex(amount)}${pack("b")}cb${float.toString("hex")}`));
      const { a, b } = await call;
      assert.deepEqual([a, b], [amount, amount]);
    }
    // Other numbers and bytes, in fields that a later version may add.
    const more = bank.query({});
    await socket.raw();
    socket.say(from(`82${pack("request")}0c${pack("ok")}81${pack("a")}96e0d0ffd1ff00d3ffe0000000000001ca3fc00000c402abcd`));
    assert.deepEqual((await more).a, [-32, -1, -256, -(2 ** 53 - 1), 1.5, "abcd"]);
    const tooLarge = bank.query({});
    await socket.raw();
    socket.say(from(`82${pack("request")}0d${pack("ok")}81${pack("a")}cf0020000000000000`));
    assert.equal(socket.readyState, 3, "2^53 was taken");
    await Promise.all([assert.rejects(tooLarge), bank.close()]);
  },
};

for (const [name, test] of Object.entries(tests)) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("it hangs")), 20_000)));
  try {
    await Promise.race([test(), late]);
  } catch (error) {
    console.error(`${name}: ${error.stack}`);
    process.exit(1);
  }
  clearTimeout(timer);
}
console.log(`${Object.keys(tests).length} tests passed`);

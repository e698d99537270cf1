// What the test `outside` runs in Node.js: node module.mjs ENCODING URL…
import assert from "node:assert/strict";
import { RabiaBank, Refused } from "../web/rabia-bank.mjs";

const [encoding, ...urls] = process.argv.slice(2);
const bank = new RabiaBank(urls, { token: process.env.RABIA_BANK_TOKEN, timeoutMs: 30_000, encoding });
assert.throws(() => new RabiaBank(urls, { encoding: "xml" }), TypeError);
const opened = await bank.createAccount("alice", 1_000_000);
assert.equal(opened.account.balance, 1_000_000);
await bank.createAccount("bob");
const paid = await bank.transfer("alice", "bob", 300n);
assert.deepEqual([paid.transaction.from_balance, paid.replayed], [999_700, false]);
assert.equal(await bank.balance("bob", { read: { at_least: paid.slot } }), 300);
await assert.rejects(bank.withdraw("bob", 301), (error) => error instanceof Refused && error.code === "insufficient_funds");
await assert.rejects(bank.balance("nobody"), (error) => error instanceof Refused && error.code === "account_not_found");
for (const amount of [1.5, 2 ** 53, Number.NaN, "5"]) await assert.rejects(bank.deposit("bob", amount), RangeError);
await assert.rejects(
  bank.bulk([{ deposit: { account_id: "bob", amount: 1 } }, { deposit: { account_id: "no", amount: 1 } }], { atomic: true }),
  (error) => error instanceof Refused && error.index === 1,
);
assert.equal((await bank.account("bob")).transaction_count, 2);
const ids = [];
for await (const transaction of bank.history({ limit: 1 })) ids.push(transaction.transaction_id);
assert.deepEqual(ids, [3, 2, 1]);
const names = [];
for await (const account of bank.accounts()) names.push(account.account_id);
assert.deepEqual(names, ["alice", "bob"]);
assert.deepEqual(await bank.transaction(paid.transaction.transaction_id), paid.transaction);
const nobody = await new Promise((resolve) => bank.subscribe({ account_id: "nobody" }, () => {}, resolve));
assert.equal(nobody.code, "account_not_found");
const alone = new RabiaBank(["ws://127.0.0.1:9"], { timeoutMs: 200 });
await assert.rejects(alone.deposit("bob", 1), (error) => error instanceof Refused && error.code === "not_reached");
await assert.rejects(alone.balance("bob"), (error) => error instanceof Refused && error.code === "not_reached");
await alone.close();
// Whole numbers are exact up to 2^53 − 1: those above 2^32 have another form in MessagePack.
const large = 2n ** 53n - 1n - 1_000_000n;
await bank.createAccount("rich", large);
assert.equal(await bank.balance("rich"), Number(large));
await assert.rejects(bank.deposit("rich", 1), (error) => error instanceof Refused && error.code === "balance_overflow");
const back = await bank.withdraw("rich", large - 2n ** 32n);
assert.equal(back.transaction.from_balance, 2 ** 32);
const { total_balance, by_type } = await bank.statistics();
assert.deepEqual([total_balance, by_type.withdrawal.volume], [1_000_000 + 2 ** 32, Number(large) - 2 ** 32]);
await bank.withdraw("rich", 2 ** 32);
// Another asset, bounds, a class; and an account that is frozen.
assert.equal((await bank.createAsset("EUR", 2, 1_000)).transaction.type, "asset");
const shop = { asset: "EUR", max_balance: 500, code: "shop" };
assert.equal((await bank.createAccount("shop", 400, shop)).account.asset, "EUR");
await assert.rejects(bank.deposit("shop", 101), (error) => error instanceof Refused && error.code === "balance_limit");
await assert.rejects(bank.transfer("alice", "shop", 1), (error) => error instanceof Refused && error.code === "asset_mismatch");
assert.equal((await bank.setAccount("shop", { status: "frozen" })).transaction.settings, '{"status":"frozen"}');
await assert.rejects(bank.withdraw("shop", 1), (error) => error instanceof Refused && error.code === "account_frozen");
assert.deepEqual((await bank.assets()).map(({ asset, total_balance }) => [asset, total_balance]), [["XXX", 1_000_000], ["EUR", 400]]);
assert.equal((await bank.statistics({ asset: "EUR" })).transactions.count, 2);
const shops = [];
for await (const account of bank.accounts({ code: "shop" })) shops.push(account.account_id);
assert.deepEqual(shops, ["shop"]);
console.log("checks passed");

const heard = [];
const feed = bank.subscribe({ account_id: "bob", from: 1 }, (transaction) => heard.push(transaction));
console.log("moving");
for (let round = 0; round < 8; round++) {
  await Promise.all(Array.from({ length: 50 }, () => bank.transfer("alice", "bob", 1)));
  await new Promise((resolve) => setTimeout(resolve, 100));
}
assert.equal(await bank.balance("bob"), 700);
while (heard.length < 402) await new Promise((resolve) => setTimeout(resolve, 20));
assert.equal(new Set(heard.map(({ transaction_id }) => transaction_id)).size, 402);
assert.deepEqual(heard.at(-1).to_balance, 700);
feed.close();
await bank.close();
console.log("moved 400 and heard of all");

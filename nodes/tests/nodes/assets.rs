//! Assets, and bounds and statuses of accounts, in real nodes: every refusal alone and in bulks, over kills, snapshots and backups, and
//! in the program.

use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};

use crate::support::{Cluster, Connection, audited, program};

/// A bank of euros in which accounts may be overdrawn, with snapshots all the time.
fn bank() -> Cluster {
    let args = ["--asset", "EUR:2", "--allow-overdraft", "--transaction-limit", "9007199254740991"];
    Cluster::create_as(3, &args, |config| config.limits.snapshot_slots = 8).started()
}

#[track_caller]
fn done(answer: &Value) -> &Value {
    assert!(answer["ok"].is_object(), "{answer}");
    &answer["ok"]
}

/// Asks for it alone and in an atomic bulk, of which nothing else then happens either.
#[track_caller]
fn refused(connection: &mut Connection, command: &Value, code: &str) {
    let alone = connection.command(command.clone());
    assert_eq!((&alone["error"]["code"], &alone["error"]["outcome"]), (&json!(code), &json!("refused")), "{command}");
    let asset = format!("T{}", connection.number());
    let before = json!({"create_asset": {"asset": asset, "scale": 0, "limit": 1}});
    let bulk = json!({"bulk": {"commands": [before, command], "atomic": true}});
    let answer = connection.command(bulk);
    assert_eq!((&answer["error"]["code"], &answer["error"]["index"]), (&json!(code), &json!(1)), "{answer}");
    let assets = connection.query(json!({"list_assets": {}}));
    let listed = done(&assets)["assets"].as_array().unwrap();
    assert!(listed.iter().all(|listed| listed["asset"] != *asset), "a bulk that was undone left {asset}");
}

fn create(id: &str, balance: u64, settings: Value) -> Value {
    let mut fields = json!({"account_id": id, "initial_balance": balance});
    fields.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    json!({"create_account": fields})
}

fn set(id: &str, change: Value) -> Value {
    let mut fields = json!({"account_id": id});
    fields.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"set_account": fields})
}

fn transfer(from: &str, to: &str, amount: u64) -> Value {
    json!({"transfer": {"from_account": from, "to_account": to, "amount": amount}})
}

fn account(connection: &mut Connection, id: &str) -> Value {
    done(&connection.query(json!({"get_account": {"account_id": id}})))["account"].clone()
}

/// Everything in one encoding; names begin with `name`.
fn every_rule(connection: &mut Connection, name: &str) {
    let id = |what: &str| format!("{name}:{what}");
    let (asset, [rich, poor, shop, other]) = (name.to_uppercase(), ["rich", "poor", "shop", "other"].map(id));
    for (code, scale, limit) in
        [("eur", 2, 1), ("", 2, 1), ("ABCDEFGHIJKLM", 2, 1), ("A", 9, 1), ("A", 2, 0), ("A", 2, 1_u64 << 53)]
    {
        let command = json!({"create_asset": {"asset": code, "scale": scale, "limit": limit}});
        refused(connection, &command, "invalid_asset");
    }
    let yen = json!({"create_asset": {"asset": asset, "scale": 0, "limit": 1_000}});
    assert_eq!(done(&connection.command(yen.clone()))["transaction"]["type"], "asset");
    refused(connection, &yen, "asset_exists");

    // New accounts, in the order of the checks.
    for bounds in [
        json!({"min_balance": 5, "max_balance": 4}),
        json!({"max_balance": -1}),
        json!({"min_balance": 1u64 << 53}),
        json!({"max_balance": 0.5}),
    ] {
        refused(connection, &create(&rich, 0, bounds), "invalid_bounds");
    }
    refused(connection, &create(&rich, 0, json!({"code": "no spaces"})), "invalid_code");
    refused(connection, &create(&rich, 0, json!({"name": "x".repeat(101)})), "invalid_name");
    refused(connection, &create(&rich, 0, json!({"name": "two\nlines"})), "invalid_name");
    refused(connection, &create(&rich, 0, json!({"asset": "NONE"})), "asset_not_found");
    refused(connection, &create(&rich, 1_001, json!({"asset": asset})), "invalid_amount");
    refused(connection, &create(&rich, 6, json!({"max_balance": 5})), "balance_limit");
    done(&connection.command(create(&rich, 1_000, json!({}))));
    let overdrawn = json!({"min_balance": -300, "max_balance": 10, "code": "customer", "name": "Zo\u{eb}"});
    let opened = connection.command(create(&poor, 0, overdrawn));
    assert_eq!(done(&opened)["account"]["available"], 300, "{opened}");
    done(&connection.command(create(&shop, 40, json!({"asset": asset, "max_balance": 100, "code": "shop"}))));
    done(&connection.command(create(&other, 0, json!({"asset": asset, "min_balance": "none"}))));

    // Bounds: nothing passes them, and what is outside is not taken further out.
    refused(connection, &transfer(&poor, &rich, 301), "insufficient_funds");
    assert_eq!(done(&connection.command(transfer(&poor, &rich, 300)))["transaction"]["from_balance"], -300);
    refused(connection, &transfer(&poor, &rich, 1), "insufficient_funds");
    refused(connection, &transfer(&rich, &poor, 311), "balance_limit");
    done(&connection.command(set(&poor, json!({"min_balance": 0, "max_balance": "none"}))));
    assert_eq!(account(connection, &poor)["available"], -300);
    refused(connection, &json!({"withdraw": {"account_id": poor, "amount": 1}}), "insufficient_funds");
    done(&connection.command(transfer(&rich, &poor, 100)));
    refused(connection, &set(&poor, json!({"max_balance": -1})), "invalid_bounds");
    refused(connection, &transfer(&rich, &shop, 1), "asset_mismatch");
    refused(connection, &json!({"deposit": {"account_id": shop, "amount": 61}}), "balance_limit");
    refused(connection, &json!({"deposit": {"account_id": shop, "amount": 1_001}}), "invalid_amount");
    let unlimited = done(&connection.command(transfer(&other, &shop, 60)))["transaction"].clone();
    assert_eq!((&unlimited["from_balance"], &unlimited["asset"]), (&json!(-60), &json!(asset)));
    assert!(account(connection, &other).get("available").is_none());

    // Statuses.
    for (status, debit, credit) in
        [("no_debits", true, false), ("no_credits", false, true), ("frozen", true, true), ("open", false, false)]
    {
        assert_eq!(
            done(&connection.command(set(&rich, json!({"status": status}))))["transaction"]["type"],
            "account_change"
        );
        for (refuses, command) in [(debit, transfer(&rich, &poor, 1)), (credit, transfer(&poor, &rich, 1))] {
            done(&connection.command(set(&poor, json!({"min_balance": "none"}))));
            if refuses {
                refused(connection, &command, "account_frozen");
            } else {
                done(&connection.command(command));
            }
        }
    }
    refused(connection, &set(&rich, json!({"status": "closed"})), "account_not_empty");
    let rest = account(connection, &rich)["balance"].as_u64().unwrap();
    done(&connection.command(json!({"withdraw": {"account_id": rich, "amount": rest}})));
    done(&connection.command(set(&rich, json!({"status": "closed", "name": "gone"}))));
    refused(connection, &set(&rich, json!({"status": "open"})), "account_closed");
    refused(connection, &transfer(&poor, &rich, 1), "account_closed");
    refused(connection, &json!({"deposit": {"account_id": rich, "amount": 1}}), "account_closed");

    // What is asked.
    let shops = connection.query(json!({"list_accounts": {"code": "shop", "after": name}}));
    let listed = done(&shops)["accounts"].as_array().unwrap();
    assert!(listed.iter().any(|listed| listed["account_id"] == *shop), "{shops}");
    let statistics = connection.query(json!({"get_statistics": {"asset": asset, "large_amount": 60}}));
    let statistics = &done(&statistics)["statistics"];
    assert_eq!((&statistics["accounts"], &statistics["total_balance"]), (&json!(2), &json!(40)), "{statistics}");
    assert_eq!(statistics["large_transactions"].as_array().unwrap().len(), 1, "{statistics}");
    assert_eq!(statistics["totals"][&asset], 40, "{statistics}");
}

#[test]
fn every_rule_of_assets_bounds_and_statuses_holds_over_restarts_and_backups() {
    let mut cluster = bank();
    for (node, (encoding, name)) in [(Encoding::Json, "json"), (Encoding::MessagePack, "pack")].into_iter().enumerate()
    {
        let mut connection = cluster.nodes[node].connect(encoding);
        every_rule(&mut connection, name);
    }
    let seen = |connection: &mut Connection| {
        let accounts = done(&connection.query(json!({"list_accounts": {}})))["accounts"].clone();
        let assets = done(&connection.query(json!({"list_assets": {}})))["assets"].clone();
        (accounts, assets)
    };
    let before = seen(&mut cluster.nodes[0].connect(Encoding::Json));
    cluster.nodes[2].kill();
    cluster.nodes[2].start();
    cluster.wait_ready();
    cluster.wait_equal();
    assert_eq!(seen(&mut cluster.nodes[2].connect(Encoding::Json)), before);

    let backup = cluster.dir.path().join("bank.backup");
    let data_dir = cluster.nodes[0].config.data_dir.clone();
    let taken = program(["backup", "--data-dir"]).arg(&data_dir).arg("--to").arg(&backup).output().unwrap();
    assert!(taken.status.success(), "{taken:?}");
    for node in &mut cluster.nodes {
        node.stop();
        assert_eq!(audited(node)["verified"], true);
    }
    let restored = cluster.dir.path().join("restored");
    let output = program(["restore", "--nodes", "1", "--data-dir"]).arg(&restored).arg(&backup).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let config = std::fs::read_to_string(restored.join("node-1/node.toml")).unwrap();
    assert!(config.contains("asset = \"EUR:2\"") && config.contains("allow_overdraft = true"), "{config}");
    let verified = program(["audit", "verify", "--json", "--data-dir"]).arg(restored.join("node-1")).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let exported = program(["audit", "export", "--format", "csv", "--data-dir"]).arg(restored.join("node-1")).output();
    let csv = String::from_utf8(exported.unwrap().stdout).unwrap();
    assert!(csv.lines().next().unwrap().ends_with("act,asset,settings"), "{csv}");
    assert!(csv.contains("account_change") && csv.contains("PACK"), "{csv}");
}

/// No balance and no sum goes beyond 2^53 − 1, on either side of 0.
#[test]
fn balances_end_at_2_to_the_53_on_both_sides_of_zero() {
    let cluster = bank();
    let mut connection = cluster.nodes[0].connect(Encoding::Json);
    const MOST: u64 = (1 << 53) - 1;
    let unbounded = json!({"min_balance": "none"});
    done(&connection.command(create("owes", 0, unbounded.clone())));
    done(&connection.command(create("also-owes", 0, unbounded)));
    done(&connection.command(create("has", 0, json!({"max_balance": MOST, "min_balance": -(MOST as i64)}))));
    let moved = connection.command(transfer("owes", "has", MOST));
    let transaction = &done(&moved)["transaction"];
    assert_eq!((&transaction["from_balance"], &transaction["to_balance"]), (&json!(-(MOST as i64)), &json!(MOST)));
    refused(&mut connection, &transfer("owes", "also-owes", 1), "balance_overflow");
    refused(&mut connection, &json!({"withdraw": {"account_id": "owes", "amount": 1}}), "balance_overflow");
    refused(&mut connection, &json!({"deposit": {"account_id": "has", "amount": 1}}), "balance_limit");
    // The sum of all: as much below 0 as there can be.
    done(&connection.command(json!({"withdraw": {"account_id": "has", "amount": MOST}})));
    refused(&mut connection, &json!({"withdraw": {"account_id": "also-owes", "amount": 1}}), "balance_overflow");
    let state = cluster.wait_equal();
    assert_eq!(state[0]["total_balance"], -(MOST as i64), "{state:?}");
}

#[test]
fn a_bank_that_allows_no_overdraft_has_no_lower_bound_below_zero() {
    let cluster = Cluster::start(1);
    let mut connection = cluster.nodes[0].connect(Encoding::Json);
    for bound in [json!(-1), json!("none")] {
        refused(&mut connection, &create("a", 0, json!({"min_balance": bound})), "invalid_bounds");
    }
    done(&connection.command(create("a", 0, json!({"min_balance": 0}))));
    for bound in [json!(-1), json!("none")] {
        refused(&mut connection, &set("a", json!({"min_balance": bound})), "invalid_bounds");
    }
    let answer = connection.command(set("a", json!({"min_balance": "some"})));
    assert_eq!(answer["error"]["code"], "malformed", "{answer}");
    assert_eq!(account(&mut connection, "a")["asset"], "XXX");
}

#[test]
fn the_program_speaks_of_assets_bounds_and_statuses() {
    let cluster = bank();
    let run = |line: &str| {
        let output = cluster.client(line.split(' '));
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let refused = |line: &str, code: &str| {
        let output = cluster.client(line.split(' '));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(4) && stderr.contains(code), "{line}: {stderr}");
    };
    assert!(run("create-asset JPY 0 500").contains("\"scale\":0"));
    let zoe = run("create-account zoe --min-balance -50000 --code customer --name Zoe");
    for part in ["EUR", "available 50,000, at least -50,000", "code customer", "name Zoe", "\"min_balance\":-50000"] {
        assert!(zoe.contains(part), "{part} in {zoe}");
    }
    run("create-account till 100 --asset JPY --max-balance 400");
    refused("deposit till 301", "balance_limit");
    assert!(run("withdraw zoe 1200").contains("zoe (now -1,200)"));
    assert_eq!(run("balance zoe").trim(), "-1,200");
    assert!(
        run("set-account zoe --status frozen --max-balance none")
            .contains("{\"max_balance\":\"none\",\"status\":\"frozen\"}")
    );
    refused("deposit zoe 1", "account_frozen");
    let wrong = cluster.client(["set-account", "till", "--status", "broken"]);
    assert!(wrong.status.code() == Some(2) && String::from_utf8(wrong.stderr).unwrap().contains("expected open"));
    assert!(run("account zoe").contains("frozen"));
    let accounts = run("accounts --code customer");
    assert!(accounts.contains("zoe") && !accounts.contains("till"), "{accounts}");
    let assets = run("assets");
    assert!(assets.contains("JPY") && assets.contains("-1,200"), "{assets}");
    assert!(run("statistics --asset JPY").contains("asset         JPY"));
    let output = cluster.client(["statistics", "--asset", "GBP"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("asset_not_found"));
}

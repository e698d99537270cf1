//! Opens two accounts, moves money between them, and reads the balance: the client library in one page.
//!
//! `cargo run -p rabia-bank-examples --bin first_transfer [URL,URL…]`

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use rabia_bank::client::{CallError, Client, ClientOptions, NodeUrl};
use rabia_bank_messages::bank::{Amount, Command, ErrorCode, Operation, Query, ReadLevel, Success};

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout)] // a program for people
async fn main() -> Result<(), Box<dyn Error>> {
    let urls = std::env::args().nth(1);
    let urls = urls.as_deref().unwrap_or("ws://127.0.0.1:7101,ws://127.0.0.1:7102,ws://127.0.0.1:7103");
    // Tried in turn: when a node dies, the client goes on at the next, in the same session.
    let client = Client::connect(ClientOptions::new(NodeUrl::list(urls)?));

    // Names that no earlier run used.
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let (savings, shop) = (format!("savings-{run}"), format!("shop-{run}"));
    for (account, cents) in [(&savings, 10_000), (&shop, 0)] {
        let account_id = account.as_str().into();
        let operation = Operation::CreateAccount { account_id, initial_balance: Amount::new(cents) };
        client.command(Command::One(operation)).await?;
    }

    let pay = |cents| {
        let (from_account, to_account) = (savings.as_str().into(), shop.as_str().into());
        Command::One(Operation::Transfer { from_account, to_account, amount: Amount::new(cents) })
    };
    let paid = client.command(pay(2_500)).await?;
    if let Success::Transaction { transaction } = paid.success {
        println!("paid {} as transaction {}", transaction.amount, transaction.transaction_id);
    }
    // A refusal is an answer: certainly nothing was moved.
    match client.command(pay(1_000_000)).await {
        Err(CallError::Refused(refusal)) if refusal.code == ErrorCode::InsufficientFunds => {
            println!("refused: {}", refusal.message);
        }
        other => return Err(format!("expected a refusal, not {other:?}").into()),
    }
    let read = client.query(Query::GetBalance { account_id: shop.as_str().into() }, ReadLevel::Linearizable).await?;
    if let Success::Balance { balance } = read.success {
        println!("the shop has {balance}");
    }
    client.close().await;
    Ok(())
}

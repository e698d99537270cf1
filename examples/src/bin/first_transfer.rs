//! Opens two accounts, moves money between them, and reads the balance: the client library in one page.
//!
//! `cargo run -p rabia-bank-examples --bin first_transfer [URL,URL…]`

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use rabia_bank::bank::{ErrorCode, ReadLevel};
use rabia_bank::client::{BankCalls, CallError, Client, ClientOptions, NodeUrl, find_token};

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout)] // a program for people
async fn main() -> Result<(), Box<dyn Error>> {
    let urls = std::env::args().nth(1);
    let urls = urls.as_deref().unwrap_or("ws://127.0.0.1:7101,ws://127.0.0.1:7102,ws://127.0.0.1:7103");
    // Of a cluster that was made in this folder, or of the variable RABIA_BANK_TOKEN.
    let token = find_token("rabia-bank-data/client.token".as_ref())?;
    // Tried in turn: when a node dies, the client goes on at the next, in the same session.
    let client = Client::connect(ClientOptions { token, ..ClientOptions::new(NodeUrl::list(urls)?) });

    // Names that no earlier run used.
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let (savings, shop) = (format!("savings-{run}"), format!("shop-{run}"));
    client.create_account(&*savings, 10_000).await?;
    client.create_account(&*shop, 0).await?;

    let paid = client.transfer(&*savings, &*shop, 2_500).await?;
    println!("paid {} as transaction {}", paid.value.amount, paid.value.transaction_id);
    // A refusal is an answer: certainly nothing was moved.
    match client.transfer(&*savings, &*shop, 1_000_000).await {
        Err(CallError::Refused(refusal)) if refusal.code == ErrorCode::InsufficientFunds => {
            println!("refused: {}", refusal.message);
        }
        other => return Err(format!("expected a refusal, not {other:?}").into()),
    }
    // At whichever node this is answered, it knows the transfer.
    let read = client.balance(&*shop, ReadLevel::AtLeast(paid.slot)).await?;
    println!("the shop has {}", read.value);
    client.close().await;
    Ok(())
}

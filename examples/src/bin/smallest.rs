//! The smallest program with a bank inside: one node on a thread of its own, one account, one deposit a run.
//!
//! `cargo run -p rabia-bank-examples --bin smallest [FOLDER]`

use rabia_bank::bank::{ErrorCode, ReadLevel};
use rabia_bank::embed::{BankCalls, Embedded};

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout)] // a program for people
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "smallest-data".into());
    let node = Embedded::single(folder)?;
    let bank = node.session().await?;
    match bank.create_account("jar", 0).await {
        Ok(_) => println!("opened the jar"),
        Err(refusal) if refusal.code == ErrorCode::AccountExists => {}
        Err(refusal) => return Err(refusal.into()),
    }
    bank.deposit("jar", 25).await?;
    println!("the jar has {}", bank.balance("jar", ReadLevel::Linearizable).await?.value);
    node.stop().await?;
    Ok(())
}

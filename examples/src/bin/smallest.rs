//! The smallest program with a bank inside: one node on a thread of its own, one account, one deposit a run.
//!
//! `cargo run -p rabia-bank-examples --bin smallest [FOLDER [BASE-PORT]]`

use rabia_bank::create::{NewCluster, create_or_open};
use rabia_bank::embed::Embedded;
use rabia_bank_messages::bank::{Amount, Command, ErrorCode, Operation, Query, ReadLevel, Success};

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout)] // a program for people
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "smallest-data".into());
    let base_port = arguments.next().map_or(Ok(7501), |port| port.parse())?;
    let mut members = create_or_open(&NewCluster { base_port, ..NewCluster::new(folder, 1) })?;
    let node = Embedded::start_on_thread(members.remove(0))?;

    let bank = node.session().await?;
    let open = Operation::CreateAccount { account_id: "jar".into(), initial_balance: Amount::new(0) };
    match bank.command(Command::One(open)).await {
        Ok(_) => println!("opened the jar"),
        Err(refusal) if refusal.code == ErrorCode::AccountExists => {}
        Err(refusal) => return Err(refusal.into()),
    }
    bank.command(Command::One(Operation::Deposit { account_id: "jar".into(), amount: Amount::new(25) })).await?;
    let read = bank.query(Query::GetBalance { account_id: "jar".into() }, ReadLevel::Linearizable).await?;
    if let Success::Balance { balance } = read.success {
        println!("the jar has {balance}");
    }
    node.stop().await?;
    Ok(())
}

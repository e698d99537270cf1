//! A game whose money lives in a bank inside it: actors of the game speak to the bank's actors, in one actix System.
//!
//! `cargo run -p rabia-bank-examples --bin game_economy [FOLDER]`
//!
//! - The `Market` owns a session with the bank. Players earn gold (a deposit), buy from the shop and trade with one another
//!   (transfers). An item changes hands only after the bank has applied the payment: a player without gold gets nothing, and a
//!   payment whose outcome is unknown is asked for again under its number until it is known.
//! - The `Herald` listens to the bank, and tells of every purchase of 100 gold or more, whoever made it.

use std::collections::BTreeMap;

use actix::prelude::*;
use rabia_bank::bank::{Amount, Command, ErrorCode, Operation, Outcome, ReadLevel, Refusal, Success, TransactionType};
use rabia_bank::create::{NewCluster, create_or_open};
use rabia_bank::embed::{self, BankCalls, Embedded, Feed, Happened, HostSession, Reach, Subscribe};

const SHOP: &str = "shop";
/// Purchases of at least so much are news.
const BIG: u64 = 100;
/// How often a payment with an unknown outcome is asked for again.
const TRIES: usize = 20;

/// A player, or the shop, joins the game.
#[derive(Message)]
#[rtype(result = "Result<(), Refusal>")]
struct Join(&'static str);

/// A player has earned gold.
#[derive(Message)]
#[rtype(result = "Result<i64, Refusal>")]
struct Earn(&'static str, u64);

/// A player buys from the shop, or from another player.
#[derive(Message)]
#[rtype(result = "Result<(), Refusal>")]
struct Buy {
    buyer: &'static str,
    /// Another player; the shop where there is none.
    seller: Option<&'static str>,
    item: &'static str,
    gold: u64,
}

/// What does this player have?
#[derive(Message)]
#[rtype(result = "Vec<String>")]
struct Bag(&'static str);

/// Sells, and keeps what the players have.
struct Market {
    bank: Addr<HostSession>,
    /// The number of the next order.
    orders: u64,
    bags: BTreeMap<&'static str, Vec<&'static str>>,
}

impl Market {
    /// Has the bank execute an operation, and asks again under the same number while its outcome is unknown.
    fn order(&mut self, operation: Operation) -> impl Future<Output = Result<Success, Refusal>> + use<> {
        self.orders += 1;
        let (number, bank) = (self.orders, self.bank.clone());
        async move {
            let mut outcome = Err(Refusal::unknown(ErrorCode::Stopping, "the bank has gone"));
            for _ in 0..TRIES {
                let order = embed::Command::numbered(number, Command::One(operation.clone()));
                match bank.send(order).await {
                    Ok(Ok(reply)) => return Ok(reply.success),
                    Ok(Err(refusal)) if refusal.outcome == Outcome::Refused => return Err(refusal),
                    Ok(Err(unknown)) => outcome = Err(unknown),
                    Err(_) => break,
                }
            }
            outcome
        }
    }
}

impl Actor for Market {
    type Context = Context<Self>;
}

impl Handler<Join> for Market {
    type Result = ResponseActFuture<Self, Result<(), Refusal>>;

    fn handle(&mut self, Join(player): Join, _: &mut Self::Context) -> Self::Result {
        let opening = Operation::create_account(player, Amount::new(0));
        let opening = self.order(opening).into_actor(self);
        Box::pin(opening.map(move |opened, market, _| match opened {
            // The gold of an earlier game is still there.
            Err(refusal) if refusal.code != ErrorCode::AccountExists => Err(refusal),
            _ => {
                market.bags.entry(player).or_default();
                Ok(())
            }
        }))
    }
}

impl Handler<Earn> for Market {
    type Result = ResponseFuture<Result<i64, Refusal>>;

    fn handle(&mut self, Earn(player, gold): Earn, _: &mut Self::Context) -> Self::Result {
        let earning = self.order(Operation::Deposit { account_id: player.into(), amount: Amount::new(gold) });
        Box::pin(async move {
            match earning.await? {
                Success::Transaction { transaction } => Ok(transaction.to_balance.unwrap_or(0)),
                other => unreachable!("a deposit was answered with {other:?}"),
            }
        })
    }
}

impl Handler<Buy> for Market {
    type Result = ResponseActFuture<Self, Result<(), Refusal>>;

    fn handle(&mut self, Buy { buyer, seller, item, gold }: Buy, _: &mut Self::Context) -> Self::Result {
        let to_account = seller.unwrap_or(SHOP).into();
        // What is being sold is nobody's until it is paid.
        if let Some(seller) = seller {
            let bag = self.bags.entry(seller).or_default();
            match bag.iter().position(|held| *held == item) {
                Some(place) => bag.remove(place),
                None => {
                    let refusal = Refusal::refused(ErrorCode::NotAuthorised, format!("{seller} has no {item}"));
                    return Box::pin(actix::fut::ready(Err(refusal)));
                }
            };
        }
        let payment =
            self.order(Operation::Transfer { from_account: buyer.into(), to_account, amount: Amount::new(gold) });
        Box::pin(payment.into_actor(self).map(move |paid, market, _| {
            // An unknown payment leaves the item with nobody, for a person to look into.
            let owner = match &paid {
                Ok(_) => Some(buyer),
                Err(refusal) if refusal.outcome == Outcome::Refused => seller,
                Err(_) => None,
            };
            if let Some(owner) = owner {
                market.bags.entry(owner).or_default().push(item);
            }
            paid.map(|_| ())
        }))
    }
}

impl Handler<Bag> for Market {
    type Result = Vec<String>;

    fn handle(&mut self, Bag(player): Bag, _: &mut Self::Context) -> Self::Result {
        self.bags.get(player).into_iter().flatten().map(|item| (*item).to_owned()).collect()
    }
}

/// Tells of large purchases.
struct Herald;

impl Actor for Herald {
    type Context = Context<Self>;
}

impl Handler<Happened> for Herald {
    type Result = ();

    #[allow(clippy::print_stdout)] // a program for people
    fn handle(&mut self, Happened(transactions): Happened, _: &mut Self::Context) {
        for transaction in transactions.iter().filter(|of| of.transaction_type == TransactionType::Transfer) {
            let name = |account: &Option<Box<str>>| account.as_deref().unwrap_or("?").to_owned();
            let (buyer, seller) = (name(&transaction.from_account), name(&transaction.to_account));
            println!("hear, hear: {buyer} paid {} gold to {seller}", transaction.amount);
        }
    }
}

#[actix::main]
#[allow(clippy::print_stdout)] // a program for people
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "game-data".into());
    let mut members = create_or_open(&NewCluster::new(folder, 1))?;
    let node = Embedded::start_with(members.remove(0), Reach::alone()).await?;
    let session = node.session().await?;
    let bank = session.address().clone();

    let market = Market { bank: bank.clone(), orders: 0, bags: BTreeMap::new() }.start();
    let feed = Feed { min_amount: Some(BIG), ..Feed::default() };
    bank.send(Subscribe { feed, to: Herald.start().recipient() }).await??;

    for player in [SHOP, "ada", "bob"] {
        market.send(Join(player)).await??;
    }
    println!("ada has {} gold", market.send(Earn("ada", 150)).await??);
    market.send(Buy { buyer: "ada", seller: None, item: "sword", gold: 120 }).await??;
    match market.send(Buy { buyer: "bob", seller: Some("ada"), item: "sword", gold: 200 }).await? {
        Err(refusal) => println!("bob gets no sword: {}", refusal.code),
        Ok(()) => println!("bob was rich already"),
    }
    market.send(Earn("bob", 200)).await??;
    market.send(Buy { buyer: "bob", seller: Some("ada"), item: "sword", gold: 200 }).await??;
    println!("ada: {:?}, bob: {:?}", market.send(Bag("ada")).await?, market.send(Bag("bob")).await?);
    println!("ada has {} gold", session.balance("ada", ReadLevel::Linearizable).await?.value);
    node.stop().await?;
    Ok(())
}

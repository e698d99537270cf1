//! A REST service with the bank inside: an actix-web server and a cluster of three nodes in one process.
//!
//! `cargo run -p rabia-bank-examples --bin rest_service -- [--port 8080] [--data-dir DIR] [--base-port 7601]`
//!
//! | request | body | answers |
//! | --- | --- | --- |
//! | `POST /accounts` | `{"account_id", "initial_balance"}` | 201 the account |
//! | `POST /accounts/{id}/deposits` | `{"amount"}` | 201 the transaction |
//! | `POST /accounts/{id}/withdrawals` | `{"amount"}` | 201 the transaction |
//! | `POST /transfers` | `{"from_account", "to_account", "amount"}` | 201 the transaction |
//! | `GET /accounts/{id}` | | 200 the account |
//! | `GET /accounts/{id}/history?limit=&before=` | | 200 a page of transactions |
//! | `GET /status` | | 200 the state of every node |
//!
//! Every POST needs an `Idempotency-Key`: a text that its sender chooses for what it wants done, and repeats when it has to ask
//! again. Each key is a session of the bank's own, with one command in it. So a request that is repeated with its key, to this
//! process, after a restart, at whichever node, is executed once and gets the first answer again (200 with
//! `Idempotency-Replayed: true`); the same key with another body is a 409. Answers are kept for a day. A request that is repeated
//! later gets a 410: it may have been executed, and is not executed again; look into the history. (That holds for the 262,144 keys
//! whose time was up last: who repeats a request after weeks must look into the history first.)
//!
//! A refusal is a 4xx with the bank's stable code. A 503 says that nobody knows whether the request was executed, or may still be:
//! repeat it with the same key. So it is with `too_many_sessions`: a million keys may be remembered at a time, and a new one waits until
//! the oldest was not used for an hour.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use clap::Parser;
use rabia_bank::bank::{
    AccountId, Amount, Command, ErrorCode, HistoryFilter, Operation, Outcome, Query, ReadLevel, Refusal,
};
use rabia_bank::config::MAX_SESSIONS;
use rabia_bank::create::{NewCluster, create_or_open};
use rabia_bank::embed::{Embedded, Heard, Reply, Session, SessionKey, SessionLimits};
use serde::Deserialize;
use serde_json::json;

/// A REST service with the bank inside.
#[derive(Parser)]
struct Args {
    /// The port of the REST service, on loopback.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Where the nodes keep their data; created if absent.
    #[arg(long, default_value = "rest-service-data")]
    data_dir: PathBuf,
    /// The nodes' own ports: this, the next two, and three from 100 above.
    #[arg(long, default_value_t = 7601)]
    base_port: u16,
}

/// The cluster, and whose turn it is.
struct Bank {
    nodes: Vec<Embedded>,
    /// One session at each node, for queries.
    sessions: Vec<Session>,
    turn: AtomicUsize,
}

impl Bank {
    /// The nodes in turn, each once.
    fn turns(&self) -> impl Iterator<Item = usize> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.nodes.len();
        (first..first + count).map(move |turn| turn % count)
    }

    /// Executes a command once for each key, at one node or another.
    async fn command(&self, key: &str, command: Command) -> Heard {
        let hash = blake3::hash(format!("rest-service idempotency key {key}").as_bytes());
        let (halves, _) = hash.as_bytes().as_chunks::<16>();
        let mut heard = Err(stopped());
        for node in self.turns() {
            let Ok(session) = self.nodes[node].session_with(SessionKey(halves[0])).await else { continue };
            heard = session.command_numbered(1, command.clone()).await;
            match &heard {
                // No node knows more.
                Err(refusal) if refusal.code == ErrorCode::SessionExpired => break,
                Err(refusal) if refusal.outcome == Outcome::Unknown || refusal.code == ErrorCode::Busy => {}
                _ => break,
            }
        }
        heard
    }

    async fn query(&self, query: Query) -> Heard {
        let mut heard = Err(stopped());
        for node in self.turns() {
            heard = self.sessions[node].query(query.clone(), ReadLevel::Linearizable).await;
            if !matches!(&heard, Err(refusal) if refusal.code == ErrorCode::Stopping) {
                break;
            }
        }
        heard
    }
}

fn stopped() -> Refusal {
    Refusal::unknown(ErrorCode::Stopping, "all nodes have stopped")
}

#[derive(Deserialize)]
struct Opening {
    account_id: AccountId,
    initial_balance: Amount,
}

#[derive(Deserialize)]
struct Money {
    amount: Amount,
}

#[derive(Deserialize)]
struct Transfer {
    from_account: AccountId,
    to_account: AccountId,
    amount: Amount,
}

#[derive(Deserialize)]
struct Page {
    limit: Option<u32>,
    before: Option<u64>,
}

async fn create_account(request: HttpRequest, bank: web::Data<Bank>, body: web::Json<Opening>) -> HttpResponse {
    let Opening { account_id, initial_balance } = body.into_inner();
    execute(&request, &bank, Operation::create_account(account_id, initial_balance)).await
}

async fn deposit(
    request: HttpRequest,
    bank: web::Data<Bank>,
    account: web::Path<String>,
    body: web::Json<Money>,
) -> HttpResponse {
    let account_id = account.into_inner().into();
    execute(&request, &bank, Operation::Deposit { account_id, amount: body.amount }).await
}

async fn withdraw(
    request: HttpRequest,
    bank: web::Data<Bank>,
    account: web::Path<String>,
    body: web::Json<Money>,
) -> HttpResponse {
    let account_id = account.into_inner().into();
    execute(&request, &bank, Operation::Withdraw { account_id, amount: body.amount }).await
}

async fn transfer(request: HttpRequest, bank: web::Data<Bank>, body: web::Json<Transfer>) -> HttpResponse {
    let Transfer { from_account, to_account, amount } = body.into_inner();
    execute(&request, &bank, Operation::Transfer { from_account, to_account, amount }).await
}

async fn account(bank: web::Data<Bank>, account: web::Path<String>) -> HttpResponse {
    let account_id = account.into_inner().into();
    answer(bank.query(Query::GetAccount { account_id }).await, StatusCode::OK)
}

async fn history(bank: web::Data<Bank>, account: web::Path<String>, page: web::Query<Page>) -> HttpResponse {
    let account_id = Some(account.into_inner().into());
    let filter = HistoryFilter { account_id, limit: page.limit, before: page.before, ..HistoryFilter::default() };
    answer(bank.query(Query::GetTransactionHistory(filter)).await, StatusCode::OK)
}

async fn status(bank: web::Data<Bank>) -> HttpResponse {
    let mut nodes = Vec::new();
    for node in &bank.nodes {
        nodes.push(match node.status().await {
            Ok(status) => json!(status),
            Err(error) => json!({"error": error.to_string()}),
        });
    }
    HttpResponse::Ok().json(nodes)
}

async fn execute(request: &HttpRequest, bank: &Bank, operation: Operation) -> HttpResponse {
    let key = request.headers().get("Idempotency-Key").and_then(|key| key.to_str().ok());
    match key.filter(|key| !key.is_empty()) {
        Some(key) => answer(bank.command(key, Command::One(operation)).await, StatusCode::CREATED),
        None => {
            let message =
                "a POST needs an Idempotency-Key: a text of your choice, the same when you repeat the request";
            answer(Err(Refusal::refused(ErrorCode::Malformed, message)), StatusCode::BAD_REQUEST)
        }
    }
}

fn answer(heard: Heard, done: StatusCode) -> HttpResponse {
    match heard {
        Ok(Reply { success, replayed: true, .. }) => {
            HttpResponse::Ok().insert_header(("Idempotency-Replayed", "true")).json(success)
        }
        Ok(Reply { success, .. }) => HttpResponse::build(done).json(success),
        Err(refusal) => HttpResponse::build(status_of(&refusal)).json(json!({"error": refusal})),
    }
}

fn status_of(refusal: &Refusal) -> StatusCode {
    if refusal.code == ErrorCode::SessionExpired {
        return StatusCode::GONE;
    }
    if refusal.outcome == Outcome::Unknown {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    match refusal.code {
        ErrorCode::AccountNotFound | ErrorCode::TransactionNotFound => StatusCode::NOT_FOUND,
        ErrorCode::AccountExists | ErrorCode::RequestReused => StatusCode::CONFLICT,
        ErrorCode::Malformed => StatusCode::BAD_REQUEST,
        ErrorCode::Busy
        | ErrorCode::NoQuorum
        | ErrorCode::NotYetApplied
        | ErrorCode::Stopping
        | ErrorCode::TooManySessions => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// What is no JSON, or lacks a field, is refused as the bank refuses.
fn malformed(error: &dyn std::fmt::Display) -> HttpResponse {
    answer(Err(Refusal::refused(ErrorCode::Malformed, error.to_string())), StatusCode::BAD_REQUEST)
}

#[actix_web::main]
#[allow(clippy::print_stdout)] // a program for people
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Args { port, data_dir, base_port } = Args::parse();
    // Each key is a session, for a day.
    let sessions = SessionLimits { open: MAX_SESSIONS, ..SessionLimits::default() };
    let members = create_or_open(&NewCluster { base_port, sessions, ..NewCluster::new(data_dir, 3) })?;
    let (mut nodes, mut sessions) = (Vec::new(), Vec::new());
    for config in members {
        let node = Embedded::start(config).await?;
        sessions.push(node.session().await?);
        nodes.push(node);
    }
    let bank = web::Data::new(Bank { nodes: nodes.clone(), sessions, turn: AtomicUsize::new(0) });
    let routes = move |config: &mut web::ServiceConfig| {
        config
            .app_data(bank.clone())
            .app_data(web::JsonConfig::default().error_handler(|error, _| {
                let response = malformed(&error);
                actix_web::error::InternalError::from_response(error, response).into()
            }))
            .route("/accounts", web::post().to(create_account))
            .route("/accounts/{id}", web::get().to(account))
            .route("/accounts/{id}/history", web::get().to(history))
            .route("/accounts/{id}/deposits", web::post().to(deposit))
            .route("/accounts/{id}/withdrawals", web::post().to(withdraw))
            .route("/transfers", web::post().to(transfer))
            .route("/status", web::get().to(status));
    };
    let server = HttpServer::new(move || App::new().configure(routes.clone())).workers(1).bind(("127.0.0.1", port))?;
    for address in server.addrs() {
        println!("REST on http://{address}");
    }
    let serving = server.run();
    let service = serving.handle();
    let watched = nodes.clone();
    // A node that fails takes the service down, for whoever supervises the process to start it again.
    actix_rt::spawn(async move {
        let ends = watched.iter().map(|node| Box::pin(node.ended()));
        let (ended, ..) = futures_util::future::select_all(ends).await;
        if let Err(error) = ended {
            eprintln!("error: {error}");
        }
        service.stop(true).await;
    });
    serving.await?;
    for node in &nodes {
        node.stop().await?;
    }
    Ok(())
}

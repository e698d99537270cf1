//! A web page that opens accounts, moves money and shows the live feed, over a cluster of three nodes in this process. The page
//! speaks to the nodes itself, with `web/rabia-bank.mjs`; this program only hands out the files.
//!
//! `cargo run -p rabia-bank-examples --bin web_page -- [--port 8090] [--data-dir DIR] [--base-port 7651]`

use std::path::PathBuf;

use actix_web::{App, HttpResponse, HttpServer, web};
use clap::Parser;
use rabia_bank::create::{NewCluster, create_or_open};
use rabia_bank::embed::Embedded;
use rabia_bank::tokens::client_token;

/// A web page over a cluster of three.
#[derive(Parser)]
struct Args {
    /// The port of the page, on loopback.
    #[arg(long, default_value_t = 8090)]
    port: u16,
    /// Where the nodes keep their data; created if absent.
    #[arg(long, default_value = "web-page-data")]
    data_dir: PathBuf,
    /// The nodes' own ports: this, the next two, and three from 100 above.
    #[arg(long, default_value_t = 7651)]
    base_port: u16,
}

fn file(kind: &'static str, text: &'static str) -> actix_web::Route {
    web::get().to(move || async move { HttpResponse::Ok().content_type(kind).body(text) })
}

#[actix_web::main]
#[allow(clippy::print_stdout)] // a program for people
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Args { port, data_dir, base_port } = Args::parse();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    let origin = format!("http://{}", listener.local_addr()?);
    let (mut nodes, mut urls) = (Vec::new(), Vec::new());
    let configs = create_or_open(&NewCluster { base_port, ..NewCluster::new(&data_dir, 3) })?;
    // Whoever may open the page may do what its token may: give yours a principal of its own.
    let token = std::fs::read_to_string(client_token(&data_dir))?.trim().to_owned();
    for mut config in configs {
        // Nodes turn foreign pages away, so each is told of this one.
        config.allowed_origins.push(origin.clone());
        urls.push(format!("ws://{}", config.client_listen));
        nodes.push(Embedded::start(config).await?);
    }
    let files = move |config: &mut web::ServiceConfig| {
        let (urls, token) = (urls.clone(), token.clone());
        config
            .route("/", file("text/html; charset=utf-8", include_str!("../../web/index.html")))
            .route("/rabia-bank.mjs", file("text/javascript", include_str!("../../web/rabia-bank.mjs")))
            .route("/nodes.json", web::get().to(move || std::future::ready(HttpResponse::Ok().json(&urls))))
            .route("/token.json", web::get().to(move || std::future::ready(HttpResponse::Ok().json(&token))));
    };
    println!("open {origin}");
    HttpServer::new(move || App::new().configure(files.clone())).workers(1).listen(listener)?.run().await?;
    for node in &nodes {
        node.stop().await?;
    }
    Ok(())
}

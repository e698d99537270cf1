//! The code on the pages for people who embed a node: it compiles, does what the page says, and stands here word for word.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test says what failed by failing

#[allow(dead_code)]
#[path = "../src/bin/own_state_machine.rs"]
mod program;

const PAGES: [(&str, &str); 2] = [
    ("README.md", include_str!("../../README.md")),
    ("OWN_STATE_MACHINE.md", include_str!("../../nodes/OWN_STATE_MACHINE.md")),
];

/// README.md, "Inside your own program".
mod embedding {
    use rabia_bank::bank::ReadLevel;
    use rabia_bank::embed::{BankCalls, Embedded};

    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
        let node = Embedded::single("bank-data")?;
        let bank = node.session().await?;
        bank.create_account("alice", 1_000).await.ok(); // the second time she is there
        bank.withdraw("alice", 300).await?;
        println!("alice has {}", bank.balance("alice", ReadLevel::Linearizable).await?.value);
        Ok(node.stop().await?)
    }
}

/// OWN_STATE_MACHINE.md.
mod own_state_machine {
    use rabia_bank::bank::ReadLevel;
    use rabia_bank::embed::Embedded;

    use super::program::{Answer, Change, KeyValues};

    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn colour() -> Result<Answer, Box<dyn std::error::Error>> {
        let nodes = Embedded::<KeyValues>::machine_cluster("key-values", 3)?;
        let session = nodes[0].session().await?;
        session.command(Change::Put { key: "colour".into(), value: "red".into() }).await?;
        let colour = session.query("colour".into(), ReadLevel::Linearizable).await?.success;
        drop(session);
        for node in nodes {
            node.stop().await?;
        }
        Ok(colour)
    }
}

/// Lines without the space around them. That something is public here the pages need not say.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.trim().trim_start_matches("pub(crate) ")).collect()
}

/// The blocks of Rust on a page, by lines.
fn code(page: &str) -> Vec<Vec<&str>> {
    let blocks = page.split("\n```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix("rust")?.split_once('\n')).map(|(_, code)| lines(code)).collect()
}

#[test]
fn the_code_on_the_pages_is_code_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    std::env::set_current_dir(folder.path()).unwrap();
    embedding::main().unwrap();
    embedding::main().unwrap();
    assert_eq!(own_state_machine::colour().unwrap(), program::Answer::Value(Some("red".into())));

    let here = lines(include_str!("pages.rs"));
    for (name, page) in PAGES {
        let blocks = code(page);
        assert!(!blocks.is_empty(), "{name} shows no code");
        for block in blocks {
            let stands_here = here.windows(block.len()).any(|window| window == block);
            assert!(stands_here, "{name} shows code that is not tested here:\n{}", block.join("\n"));
        }
    }
}

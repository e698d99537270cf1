//! The configuration of a node.

use std::path::Path;

use rabia_bank::config::{ConfigError, NodeConfig};

/// What is taken can be written, and says the same then. What is not is refused with a reason and the right line.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let path = Path::new("node.toml");
    match NodeConfig::parse(text, path) {
        Ok(config) => {
            let written = config.to_toml();
            // The file belongs into the folder of the data.
            match NodeConfig::parse(&written, &config.data_dir.join("node.toml")) {
                Ok(again) => assert_eq!(again, config),
                Err(error) => panic!("what it wrote itself is refused: {error}\n{written}"),
            }
        }
        Err(error) => {
            assert!(error.to_string().contains("node.toml"), "{error}");
            if let ConfigError::Invalid { line: Some(line), .. } = error {
                assert!((1..=text.lines().count()).contains(&line), "{error}");
            }
        }
    }
}

/// Files that are right, and one that leaves out all that it can.
pub fn seeds() -> Vec<Vec<u8>> {
    let member = |node: u8| {
        format!(
            "[[member]]\nnode = {node}\nstore = \"{:032x}\"\naddress = \"127.0.0.1:{}\"\n",
            node,
            7200 + u16::from(node)
        )
    };
    let small = format!("cluster = \"{:032x}\"\nnode = 1\n{}", 9, member(1));
    let three = format!(
        "cluster = \"{:032x}\"\nnode = 2\nallowed_origins = [\"https://example.org\"]\nwindow = 8\n\
         [tls]\ncertificate = \"tls.pem\"\nkey = \"/etc/tls.key\"\n\
         [limits]\nmax_clients = 10\n{}{}{}",
        9,
        member(1),
        member(2),
        member(3)
    );
    let written = NodeConfig::parse(&three, Path::new("node.toml")).map(|config| config.to_toml());
    let written = written.unwrap_or_else(|error| panic!("a seed is refused: {error}"));
    [small, three, written].map(String::into_bytes).into()
}

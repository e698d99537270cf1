//! What is said before anything is known of who says it: bytes in the place of TLS, on either side of a link between members, and the
//! first message of a client.

use std::io::Cursor;
use std::sync::LazyLock;

use rabia_bank::member_key::MemberKey;
use rabia_bank::peer_tls::PeerTls;
use rabia_bank_messages::client::ClientMessage;
use rabia_bank_messages::codec::{Encoding, decode_opening, encode_opening};
use rustls::{ClientConnection, Connection, ServerConnection};

/// The most that TLS reads before a handshake is done, in bytes: nodes give up at 4 KiB.
const MOST: usize = 8 << 10;

static TLS: LazyLock<PeerTls> = LazyLock::new(|| match PeerTls::new(&MemberKey::draw()) {
    Ok(tls) => tls,
    Err(error) => panic!("a new key is no key: {error}"),
});

fn called() -> Connection {
    match ServerConnection::new(TLS.server()) {
        Ok(connection) => connection.into(),
        Err(error) => panic!("TLS does not begin: {error}"),
    }
}

fn calling() -> Connection {
    match ClientConnection::new(TLS.client(), PeerTls::name()) {
        Ok(connection) => connection.into(),
        Err(error) => panic!("TLS does not begin: {error}"),
    }
}

/// Nobody is through without having signed what is new; what is taken for a hello is encoded in one way.
pub fn check(input: &[u8]) {
    for mut connection in [called(), calling()] {
        let mut rest = Cursor::new(&input[..input.len().min(MOST)]);
        while let Ok(1..) = connection.read_tls(&mut rest) {
            if connection.process_new_packets().is_err() {
                break;
            }
        }
        assert!(connection.is_handshaking(), "bytes that nobody signed made a connection");
        // An alert, or its own part.
        let mut answer = Vec::new();
        while connection.wants_write() && connection.write_tls(&mut answer).is_ok_and(|written| written > 0) {}
        assert!(answer.len() < MOST, "{} bytes are the answer to {}", answer.len(), input.len());
    }
    if let Ok(opening) = decode_opening(input) {
        assert_eq!(decode_opening(&encode_opening(&opening)).as_ref(), Ok(&opening));
    }
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let Ok(ClientMessage::Hello(hello)) = encoding.decode_client(input) else { continue };
        if let Some(token) = &hello.token {
            let told = format!("{hello:?}");
            assert!(token.reveal().len() < 12 || !told.contains(token.reveal()), "a token is told: {told}");
        }
    }
}

/// The first flight of each side, and hellos.
pub fn seeds() -> Vec<Vec<u8>> {
    let flight = |connection: &mut Connection| {
        let mut said = Vec::new();
        while connection.wants_write() && connection.write_tls(&mut said).is_ok_and(|written| written > 0) {}
        said
    };
    let (mut client, mut server) = (calling(), called());
    let first = flight(&mut client);
    let mut rest = Cursor::new(&first);
    while let Ok(1..) = server.read_tls(&mut rest) {
        if let Err(error) = server.process_new_packets() {
            panic!("TLS refuses itself: {error}");
        }
    }
    let second = flight(&mut server);
    let hellos = [
        r#"{"hello":{"version":2,"token":"rb_0123456789abcdefAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}}"#,
        r#"{"hello":{"version":2,"token":"rb_","open":{"key":"00112233445566778899aabbccddeeff"}}}"#,
    ];
    let texts = hellos.iter().map(|text| text.as_bytes().to_vec());
    let packed = hellos.iter().filter_map(|text| Encoding::Json.decode_client(text.as_bytes()).ok());
    let packed = packed.map(|message| Encoding::MessagePack.encode(&message));
    [first, second].into_iter().chain(texts.clone()).chain(packed).collect()
}

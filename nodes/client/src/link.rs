//! One WebSocket to one node: connecting, with limits and deadlines, since the libraries below set neither.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{SplitSink, SplitStream};
use rabia_bank_messages::codec::Encoding;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::{NodeUrl, Tls};

/// Connecting and the WebSocket's handshake take a millisecond on a network; a stopped process takes for ever.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest answer taken, in bytes: that to the largest bulk, in JSON, several times over.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Written to the socket in pieces of this size at least, unless flushed before.
const WRITE_BUFFER_BYTES: usize = 64 << 10;
/// Most sessions exchange small messages, and a program may have thousands. The socket zeroes so many bytes before every
/// read, so more is not better.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// What a WebSocket runs over: TCP, or TLS on it.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

pub(super) type Sink = SplitSink<WebSocketStream<Box<dyn Bytes>>, Message>;
pub(super) type Stream = SplitStream<WebSocketStream<Box<dyn Bytes>>>;

/// Whom to trust at this URL, if it is one for TLS. What is found out of the system is kept.
pub(super) fn trust(url: &NodeUrl, known: &mut Option<Tls>) -> Result<Option<Tls>, String> {
    if url.is_tls() && known.is_none() {
        *known = Some(Tls::system().map_err(|error| error.to_string())?);
    }
    Ok(known.clone().filter(|_| url.is_tls()))
}

/// Connects, over TLS where the URL says so. `longest_message` bounds what may wait in the write buffer.
///
/// # Errors
/// Why not, for people, with the URL.
pub(super) async fn connect(
    url: &NodeUrl,
    trust: Result<Option<Tls>, String>,
    longest_message: usize,
) -> Result<(Sink, Stream), String> {
    let attempt = async {
        let stream = TcpStream::connect(&url.address).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let stream: Box<dyn Bytes> = match trust? {
            None => Box::new(stream),
            Some(tls) => Box::new(tls.secure(stream, url.host()).await?),
        };
        let request = url.uri.clone().into_client_request().map_err(|e| e.to_string())?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(2 * (longest_message + WRITE_BUFFER_BYTES))
            .max_message_size(Some(MAX_ANSWER_BYTES))
            .max_frame_size(Some(MAX_ANSWER_BYTES));
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|e| format!("no WebSocket: {e}"))?;
        Ok(socket.split())
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(connected) => connected.map_err(|why: String| format!("{url}: {why}")),
        Err(_) => Err(format!("{url}: no handshake within {CONNECT_TIMEOUT:?}")),
    }
}

/// A message as a frame: text for JSON, binary for MessagePack.
pub(super) fn message(encoding: Encoding, bytes: Vec<u8>) -> Message {
    match encoding {
        Encoding::MessagePack => Message::binary(bytes),
        Encoding::Json => {
            let text = String::from_utf8(bytes);
            assert!(text.is_ok(), "JSON is always UTF-8: {text:?}");
            Message::text(text.unwrap_or_default())
        }
    }
}

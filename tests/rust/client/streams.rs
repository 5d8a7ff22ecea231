//! Many requests at a time through a front that bounds the streams of a connection.

#![expect(clippy::unwrap_used, reason = "fixtures of a test; only its body is exempt by itself")]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use inspect_daytona::api::sandbox::Sandbox;
use inspect_daytona::api::toolbox::ExecuteRequest;
use inspect_daytona::client::Replay;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::server::{again, client, quick, read};

/// The folder of certificate and key, in the process that trusts them.
const FOLDER: &str = "INSPECT_DAYTONA_TEST_TLS";
/// Of one HTTP/2 connection; fronts allow about a hundred.
const STREAMS: u32 = 4;
const COMMANDS: usize = 32;
/// Guards against hangs.
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn all_commands_run_at_once_however_few_streams_a_front_allows() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = folder.path().join("certificate.pem");
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let test = "streams::all_commands_run_at_once_however_few_streams_a_front_allows";
        let variables =
            [(FOLDER, folder.path().to_str().unwrap()), ("SSL_CERT_FILE", certificate.to_str().unwrap())];
        let output = again(test, &variables).await;
        assert!(output.status.success(), "{output:?}");
        return;
    };
    let folder = std::path::PathBuf::from(folder);
    let certificate = CertificateDer::from_pem_file(folder.join("certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        // no command ends before all have begun
        let all = Arc::new(Barrier::new(COMMANDS));
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(acceptor.clone(), stream, Arc::clone(&all)));
        }
    });
    let sandbox = json!({"id": "s", "name": "s", "state": "started",
        "toolboxProxyUrl": format!("https://127.0.0.1:{port}/toolbox")});
    let sandbox: Sandbox = serde_json::from_value(sandbox).unwrap();
    let client = client(&format!("https://127.0.0.1:{port}/api"), quick());
    let toolbox = client.toolbox(&sandbox).await.unwrap();
    let request = ExecuteRequest { command: "true".to_owned(), ..ExecuteRequest::default() };
    let commands = (0..COMMANDS).map(|_| toolbox.execute(&request, LIMIT, Replay::Never));
    for answer in futures_util::future::join_all(commands).await {
        assert_eq!(answer.unwrap().exit_code, 0);
    }
}

const ANSWER: &str = r#"{"exitCode":0,"result":""}"#;

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, all: Arc<Barrier>) {
    let stream = acceptor.accept(stream).await.unwrap();
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_streams(stream, all).await;
        return;
    }
    let mut stream = BufReader::new(stream);
    while read(&mut stream).await.is_some() {
        all.wait().await;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ANSWER}", ANSWER.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
}

async fn serve_streams(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, all: Arc<Barrier>) {
    let mut builder = h2::server::Builder::new();
    let mut connection = builder.max_concurrent_streams(STREAMS).handshake::<_, Bytes>(stream).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let all = Arc::clone(&all);
        tokio::spawn(async move {
            all.wait().await;
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(ANSWER.as_bytes()), true).unwrap();
        });
    }
}

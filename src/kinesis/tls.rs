//! TLS over a connection: which roots are trusted, what is offered, the handshake, and the
//! encrypted transport.
//!
//! Owns the TLS settings and, with them, the sessions that make a later handshake short; one for
//! each client. Knows nothing of sockets, deadlines and interrupts: those end the transport below
//! it. ureq's own TLS is not used, because it also links client certificates, the signing keys that
//! go with them, and QUIC. Runs on the dispatcher's thread.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, OnceLock};

use http::Uri;
use rustls::SignatureScheme as Scheme;
use rustls::crypto::ring::{cipher_suite as ring, kx_group};
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::SigningKey;
use rustls::{
    CipherSuiteCommon, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    SupportedCipherSuite, Tls13CipherSuite,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, NextTimeout, Transport, TransportAdapter,
};
use webpki::ring as webpki;

use super::buffers::SmallBuffers;

/// The TLS of one client.
#[derive(Debug)]
pub(super) struct Tls {
    /// Trusted instead of the built-in roots.
    bundle: Option<Vec<CertificateDer<'static>>>,
    /// Made with the first connection that needs it.
    config: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    pub(super) fn new(bundle: Option<Vec<CertificateDer<'static>>>) -> Tls {
        Tls { bundle, config: OnceLock::new() }
    }

    /// Does the whole handshake over `transport`, so that no byte of a request is sent before the
    /// other side has proved who it is.
    pub(super) fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        transport: Box<dyn Transport>,
    ) -> Result<TlsTransport, ureq::Error> {
        let name = server_name(details.uri)
            .ok_or(ureq::Error::Tls("the host is neither a name nor an address"))?;
        let mut session =
            ClientConnection::new(self.config().map_err(as_io)?, name).map_err(as_io)?;
        let mut below = TransportAdapter::new(transport, Arc::clone(&details.current_time));
        session.complete_io(&mut below)?;
        Ok(TlsTransport { buffers: SmallBuffers::new(), stream: StreamOwned::new(session, below) })
    }

    fn config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        let mut roots = RootCertStore::empty();
        match &self.bundle {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            // One that cannot be read is left out: the others may be all that is needed.
            Some(bundle) => _ = roots.add_parsable_certificates(bundle.iter().cloned()),
        }
        let versions = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)?;
        let config = Arc::new(versions.with_root_certificates(roots).with_no_client_auth());
        Ok(Arc::clone(self.config.get_or_init(|| config)))
    }
}

/// The name that the other side's certificate must have.
fn server_name(uri: &Uri) -> Option<ServerName<'static>> {
    let host = uri.host()?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).ok()
}

/// As the errors come that rustls reports while it reads and writes.
fn as_io(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// What ring offers, without the code that no client without a certificate of its own needs, and
/// without ChaCha20: every machine that Lambda runs on has instructions for AES, and every server
/// that AWS's endpoints or TLS 1.3 allow has AES-GCM. Ring's own list is not named, or all of that
/// would be in the program just the same.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            SupportedCipherSuite::Tls13(&TLS13_AES_256_GCM),
            SupportedCipherSuite::Tls13(&TLS13_AES_128_GCM),
            ring::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            ring::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ring::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            ring::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Random,
        key_provider: &NoKeys,
    }
}

/// What certificates and handshakes may be signed with: rustls's own list for ring.
static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        webpki::ECDSA_P256_SHA256,
        webpki::ECDSA_P256_SHA384,
        webpki::ECDSA_P384_SHA256,
        webpki::ECDSA_P384_SHA384,
        webpki::ED25519,
        webpki::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        webpki::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        webpki::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        webpki::RSA_PKCS1_2048_8192_SHA256,
        webpki::RSA_PKCS1_2048_8192_SHA384,
        webpki::RSA_PKCS1_2048_8192_SHA512,
        webpki::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
        webpki::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
        webpki::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    ],
    // TLS 1.2 tries each algorithm of a scheme, TLS 1.3 only the first.
    mapping: &[
        (Scheme::ECDSA_NISTP384_SHA384, &[webpki::ECDSA_P384_SHA384, webpki::ECDSA_P256_SHA384]),
        (Scheme::ECDSA_NISTP256_SHA256, &[webpki::ECDSA_P256_SHA256, webpki::ECDSA_P384_SHA256]),
        (Scheme::ED25519, &[webpki::ED25519]),
        (Scheme::RSA_PSS_SHA512, &[webpki::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
        (Scheme::RSA_PSS_SHA384, &[webpki::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
        (Scheme::RSA_PSS_SHA256, &[webpki::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (Scheme::RSA_PKCS1_SHA512, &[webpki::RSA_PKCS1_2048_8192_SHA512]),
        (Scheme::RSA_PKCS1_SHA384, &[webpki::RSA_PKCS1_2048_8192_SHA384]),
        (Scheme::RSA_PKCS1_SHA256, &[webpki::RSA_PKCS1_2048_8192_SHA256]),
    ],
};

/// The kernel's randomness, which ring asks as well.
#[derive(Debug)]
struct Random;

impl SecureRandom for Random {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::getrandom(buffer).map_err(|_| GetRandomFailed)
    }
}

static TLS13_AES_256_GCM: Tls13CipherSuite = without_quic(&ring::TLS13_AES_256_GCM_SHA384);
static TLS13_AES_128_GCM: Tls13CipherSuite = without_quic(&ring::TLS13_AES_128_GCM_SHA256);

/// The same suite over TCP only.
#[expect(
    clippy::panic,
    reason = "evaluated by the compiler alone: a suite of another kind does not compile"
)]
const fn without_quic(suite: &SupportedCipherSuite) -> Tls13CipherSuite {
    let SupportedCipherSuite::Tls13(suite) = suite else { panic!("a suite of TLS 1.3") };
    let CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit } = suite.common;
    Tls13CipherSuite {
        common: CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit },
        hkdf_provider: suite.hkdf_provider,
        aead_alg: suite.aead_alg,
        quic: None,
    }
}

/// There is no client certificate, and so no private key. Without ring's own provider the program
/// has no code that signs with one.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General("no private keys".to_owned()))
    }
}

/// An encrypted connection.
pub(super) struct TlsTransport {
    buffers: SmallBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output)?;
        self.buffers.written(amount);
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open() && self.is_read_to_the_end()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl TlsTransport {
    /// Whether nothing of an answer is left in any buffer on its way: what came twice would be
    /// taken for the answer to the next request. A server's session tickets are read here, and are
    /// no answer.
    fn is_read_to_the_end(&mut self) -> bool {
        loop {
            match self.stream.conn.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
                _ => return false,
            }
            let below = self.stream.sock.get_mut().buffers();
            let mut encrypted = below.input();
            if encrypted.is_empty() {
                return true;
            }
            match self.stream.conn.read_tls(&mut encrypted) {
                Ok(amount @ 1..) => below.input_consume(amount),
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring::default_provider;

    use super::*;

    fn suites(provider: &CryptoProvider) -> Vec<rustls::CipherSuite> {
        provider.cipher_suites.iter().map(SupportedCipherSuite::suite).collect()
    }

    #[test]
    fn all_that_ring_offers_is_offered_but_chacha_quic_and_private_keys() {
        let (ours, rings) = (provider(), default_provider());
        let with_aes: Vec<_> = rings
            .cipher_suites
            .iter()
            .filter(|suite| format!("{:?}", suite.suite()).contains("AES"))
            .copied()
            .collect();
        assert_eq!(
            suites(&ours),
            with_aes.iter().map(SupportedCipherSuite::suite).collect::<Vec<_>>()
        );
        assert_eq!(suites(&rings).len(), suites(&ours).len() + 3);
        for (ours, rings) in ours.cipher_suites.iter().zip(&with_aes) {
            let (Some(ours), Some(rings)) = (ours.tls13(), rings.tls13()) else { continue };
            assert_eq!(ours.common.confidentiality_limit, rings.common.confidentiality_limit);
            assert_eq!(
                ours.common.hash_provider.algorithm(),
                rings.common.hash_provider.algorithm()
            );
            assert_eq!(ours.aead_alg.key_len(), rings.aead_alg.key_len());
            assert!(ours.quic.is_none() && rings.quic.is_some());
        }
        let groups = |provider: &CryptoProvider| {
            provider.kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>()
        };
        assert_eq!(groups(&ours), groups(&rings));
        let signatures = |provider: &CryptoProvider| {
            let WebPkiSupportedAlgorithms { all, mapping } =
                provider.signature_verification_algorithms;
            (format!("{all:?}"), format!("{mapping:?}"))
        };
        assert_eq!(signatures(&ours), signatures(&rings));
        let mut bytes = [[0; 32]; 2];
        assert!(bytes.iter_mut().all(|bytes| ours.secure_random.fill(bytes).is_ok()));
        assert_ne!(bytes[0], bytes[1]);
        let key = PrivateKeyDer::Pkcs8(vec![].into());
        assert!(ours.key_provider.load_private_key(key).is_err());
    }

    #[test]
    fn one_client_has_one_configuration_so_that_sessions_are_resumed() {
        let tls = Tls::new(None);
        let (first, second) = (tls.config().unwrap(), tls.config().unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert!(first.enable_sni && first.alpn_protocols.is_empty() && !first.enable_early_data);
    }

    #[test]
    fn the_certificate_is_for_the_bare_host() {
        for (url, expected) in [
            ("https://kinesis.eu-west-1.amazonaws.com/", Some("kinesis.eu-west-1.amazonaws.com")),
            ("https://user:secret@proxy:3128/", Some("proxy")),
            ("https://127.0.0.1:8443/", Some("127.0.0.1")),
            ("https://[::1]:8443/", Some("::1")),
            ("https://has_an~odd name/", None),
            ("/", None),
        ] {
            let name = url.parse().ok().and_then(|url| server_name(&url));
            assert_eq!(name.map(|name| name.to_str().into_owned()).as_deref(), expected, "{url}");
        }
    }
}

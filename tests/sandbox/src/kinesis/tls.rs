//! A certificate authority of its own, and a leaf for every name under which Kinesis is called here.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

/// What a TLS endpoint needs, and where its clients find the authority.
pub(crate) struct Authority {
    pub(crate) server: Arc<ServerConfig>,
    directory: TempDir,
}

impl Authority {
    /// Makes a fresh authority, and a leaf for `region`'s names beside `localhost` and `127.0.0.1`.
    pub(crate) fn create(region: &str) -> io::Result<Self> {
        let (authority, leaf, key) = certificates(region).map_err(io::Error::other)?;
        let directory = TempDir::new()?;
        std::fs::write(directory.path().join("ca.pem"), authority)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![leaf], key))
            .map_err(io::Error::other)?;
        Ok(Self { server: Arc::new(server), directory })
    }

    /// For `AWS_CA_BUNDLE`.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }
}

type Made = (String, CertificateDer<'static>, PrivateKeyDer<'static>);

fn certificates(region: &str) -> Result<Made, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "sandbox test authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let authority = parameters.self_signed(&key)?;
    let issuer = Issuer::new(parameters, key);

    let names = [
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        format!("kinesis.{region}.amazonaws.com"),
        format!("kinesis-fips.{region}.amazonaws.com"),
        format!("kinesis.{region}.api.aws"),
        format!("*.data-kinesis.{region}.amazonaws.com"),
        format!("sts.{region}.amazonaws.com"),
    ];
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name.push(DnType::CommonName, "sandbox kinesis");
    let key = KeyPair::generate()?;
    let leaf = parameters.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((authority.pem(), leaf.der().clone(), key))
}

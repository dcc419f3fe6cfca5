//! TLS for links: both sides show their node's key and nothing else.
//!
//! In place of a certificate there is the bare public key (RFC 7250): no names, no authority, no
//! validity, and no parser of certificates that strangers could feed. A key is looked up before the
//! signature over the handshake is checked, so a stranger costs as little as can be.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureAlgorithm,
    SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, Signer, SigningKey},
    version::TLS13,
};

use crate::{
    identity::{Identity, is_signed_by},
    model::PublicKey,
    transport::Admission,
};

/// The name and version of what is spoken on a link.
const PROTOCOL: &[u8] = b"turbopump/1";

/// What stands before the 32 bytes of an Ed25519 key (RFC 8410).
const KEY_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Who gets in. Shared with the TLS of all links.
#[derive(Debug, Default)]
pub(super) struct Door {
    pub(super) admission: ArcSwap<Admission>,
    /// Whether keys of which nothing is known get in. The session above binds them to an id.
    pub(super) is_trusting: bool,
    refused: AtomicU64,
    last_refused: Mutex<Option<PublicKey>>,
}

impl Door {
    pub(super) fn new(is_trusting: bool) -> Self {
        Self { is_trusting, ..Self::default() }
    }

    /// How many were refused for their keys.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whose key was refused since this was asked last.
    pub(super) fn take_refused(&self) -> Option<PublicKey> {
        self.last_refused.lock().take()
    }

    /// Whether the key is that of somebody who may stay.
    pub(super) fn admits(&self, key: &PublicKey) -> bool {
        let admission = self.admission.load();
        admission.members.contains(key) || self.is_trusting && !admission.removed.contains(key)
    }

    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        let key = key_of(shown).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if self.admits(&key) {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        *self.last_refused.lock() = Some(key);
        // The other side gets it as an alert, and can say which of the two it is.
        Err(Error::InvalidCertificate(match self.admission.load().removed.contains(&key) {
            true => CertificateError::Revoked,
            false => CertificateError::ApplicationVerificationFailure,
        }))
    }
}

/// The key in what the other side showed.
pub(super) fn key_of(shown: &[u8]) -> Option<PublicKey> {
    shown.strip_prefix(&KEY_PREFIX)?.try_into().ok().map(PublicKey)
}

/// What both kinds of links are made with.
pub(super) fn configs(
    identity: &Arc<Identity>,
    door: &Arc<Door>,
) -> Result<(QuicClientConfig, QuicServerConfig), String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let shown = [&KEY_PREFIX[..], &identity.public_key().0].concat();
    let signing = Arc::new(NodeKey(identity.clone()));
    let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(shown)], signing));
    let checks = Arc::new(Checks { door: door.clone() });
    let client = client(provider.clone(), certified.clone(), checks.clone()).map_err(|e| e.to_string())?;
    let server = server(provider, certified, checks).map_err(|e| e.to_string())?;
    let client = QuicClientConfig::try_from(client).map_err(|e| e.to_string())?;
    Ok((client, QuicServerConfig::try_from(server).map_err(|e| e.to_string())?))
}

/// Nothing is resumed, so nothing is sent before the other side has shown its key.
fn client(
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
    checks: Arc<Checks>,
) -> Result<rustls::ClientConfig, Error> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(checks)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified)));
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config.alpn_protocols = vec![PROTOCOL.into()];
    Ok(config)
}

fn server(
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
    checks: Arc<Checks>,
) -> Result<rustls::ServerConfig, Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(checks)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![PROTOCOL.into()];
    Ok(config)
}

/// Both directions are checked alike.
#[derive(Debug)]
struct Checks {
    door: Arc<Door>,
}

impl Checks {
    fn signature(
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        match key_of(shown).is_some_and(|key| is_signed_by(&key, message, signed.signature())) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::BadSignature)),
        }
    }
}

/// There is no TLS 1.2 here.
fn too_old() -> Error {
    Error::General("TLS 1.3 is spoken here".into())
}

impl ServerCertVerifier for Checks {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.door.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Checks {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.door.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The node's key pair, as TLS wants it.
struct NodeKey(Arc<Identity>);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SigningKey for NodeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = || Box::new(Self(self.0.clone())) as Box<dyn Signer>;
        offered.contains(&SignatureScheme::ED25519).then(signer)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some([&KEY_PREFIX[..], &self.0.public_key().0].concat().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for NodeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

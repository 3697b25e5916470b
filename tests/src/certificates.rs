//! Certificates for servers under test, made when the test runs.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing: for 127.0.0.1 and localhost, valid for years.
    None,
    /// It ended years ago.
    Expired,
    /// It is for another host.
    OtherHost,
}

/// A certificate authority of a test's own.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
}

/// Where a server's certificate and its key lie, PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate alone.
    pub certificate: PathBuf,
    /// The key alone, PKCS #8.
    pub key: PathBuf,
    /// Key and certificate in one file, as Kafka wants them.
    pub both: PathBuf,
}

impl Authority {
    /// A new one, whose files go to `folder`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        let key = KeyPair::generate()?;
        let own = params.self_signed(&key)?;
        let certificate = folder.join(format!("{name}.pem"));
        write(&certificate, &own.pem())?;
        let issuer = Issuer::new(params, key);
        let folder = folder.to_owned();
        Ok(Self {
            issuer,
            folder,
            certificate,
        })
    }

    /// Signs a server's certificate; its files are named after `name`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn server(&self, name: &str, flaw: Flaw) -> anyhow::Result<Pair> {
        let hosts: &[&str] = match flaw {
            Flaw::OtherHost => &["elsewhere.example"],
            Flaw::None | Flaw::Expired => &["127.0.0.1", "localhost"],
        };
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = date_time_ymd(2020, 1, 1);
        let last_year = if flaw == Flaw::Expired { 2021 } else { 2099 };
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &self.issuer)?;
        let file = |ending: &str| self.folder.join(format!("{name}.{ending}"));
        let pair = Pair {
            certificate: file("crt"),
            key: file("key"),
            both: file("pem"),
        };
        let key = key.serialize_pem();
        write(&pair.certificate, &signed.pem())?;
        write(&pair.key, &key)?;
        write(&pair.both, &format!("{key}{}", signed.pem()))?;
        Ok(pair)
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

//! The subject of a caller's certificate, as Go prints it: `CN=name,OU=unit,O=org`.
//!
//! Owns: the few steps through the DER of a certificate that lead to its subject (RFC 5280, section
//! 4.1). The certificate was verified by TLS before; a form that is not understood gives nothing.

use axum::http::Extensions;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

/// Subjects of the certificates that the caller showed, its own first; `None` without TLS.
pub(super) fn peer_subjects(extensions: &Extensions) -> Option<Vec<String>> {
    let certificates = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?.peer_certs().unwrap_or_default();
    Some(certificates.iter().map(|certificate| text(certificate)).collect())
}

/// The subject of a certificate; empty when it is not understood.
pub(super) fn text(certificate: &[u8]) -> String {
    subject(certificate).map_or_else(String::new, |subject| subject.text())
}

/// The common name in the certificate of the caller of a request, if it showed one.
pub fn peer_common_name<T>(request: &tonic::Request<T>) -> Option<String> {
    let certificates = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>()?.peer_certs()?;
    subject(certificates.first()?)?.common_name()
}

/// Attributes in the order of the certificate.
struct Subject(Vec<(&'static str, String)>);

impl Subject {
    /// RFC 2253: the last attribute first.
    fn text(&self) -> String {
        let parts: Vec<String> = self.0.iter().rev().map(|(name, value)| format!("{name}={value}")).collect();
        parts.join(",")
    }

    fn common_name(&self) -> Option<String> {
        self.0.iter().find(|(name, _)| *name == "CN").map(|(_, value)| value.clone())
    }
}

/// Tag, content and rest of the first element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        ..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The content of the first element, which has to have the tag.
fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    element(der).filter(|(found, _, _)| *found == tag).map(|(_, content, rest)| (content, rest))
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
/// `[0]`: the version, absent in version 1.
const VERSION: u8 = 0xa0;

fn subject(certificate: &[u8]) -> Option<Subject> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, after)) = expect(rest, VERSION) {
        rest = after;
    }
    let (_, rest) = expect(rest, INTEGER)?; // serial number
    let (_, rest) = expect(rest, SEQUENCE)?; // signature algorithm
    let (_, rest) = expect(rest, SEQUENCE)?; // issuer
    let (_, rest) = expect(rest, SEQUENCE)?; // validity
    let (mut names, _) = expect(rest, SEQUENCE)?;
    let mut attributes = Vec::new();
    while !names.is_empty() {
        let (mut set, rest) = expect(names, SET)?;
        names = rest;
        while !set.is_empty() {
            let (attribute, rest) = expect(set, SEQUENCE)?;
            set = rest;
            let (id, value) = expect(attribute, OBJECT_ID)?;
            let (_, value, _) = element(value)?;
            if let Some(name) = attribute_name(id) {
                attributes.push((name, String::from_utf8_lossy(value).into_owned()));
            }
        }
    }
    Some(Subject(attributes))
}

/// The short names that Go prints, for the object ids 2.5.4.x.
fn attribute_name(id: &[u8]) -> Option<&'static str> {
    Some(match id {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 5] => "SERIALNUMBER",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "STREET",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 17] => "POSTALCODE",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_a_certificate_is_read() {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Vitess");
        params.distinguished_name.push(rcgen::DnType::CommonName, "vtgate");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let subject = subject(certificate.der()).expect("understood");
        assert_eq!(subject.text(), "CN=vtgate,O=Vitess");
        assert_eq!(subject.common_name().as_deref(), Some("vtgate"));
    }

    #[test]
    fn nonsense_is_refused() {
        for der in [&b""[..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 2, 0x30, 0], &[0x30, 0x80, 0, 0]]
        {
            assert!(subject(der).is_none(), "{der:?}");
        }
    }
}

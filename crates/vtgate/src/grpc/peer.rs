//! The names in a client's certificate: its subject's common name and its DNS names.
//!
//! Owns: as much of X.509 (RFC 5280, DER) as that takes. The chain has been verified by TLS; bytes
//! that are malformed nevertheless yield no names.

/// What a certificate calls its owner.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    pub common_name: String,
    pub dns_names: Vec<String>,
}

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
/// `[0]` around the version, `[3]` around the extensions of a TBSCertificate.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// `[2] IA5String` of a GeneralName: a DNS name.
const DNS_NAME: u8 = 0x82;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// One DER value: its tag and contents, taken off the front of `input`.
fn take<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = match first {
        short if short < 0x80 => usize::from(short),
        // Lengths of more than four bytes do not fit a certificate.
        long => {
            let count = usize::from(long & 0x7f);
            if count == 0 || count > 4 || rest.len() < count {
                return None;
            }
            let (bytes, after) = rest.split_at(count);
            rest = after;
            bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte))
        }
    };
    if rest.len() < length {
        return None;
    }
    let (contents, after) = rest.split_at(length);
    *input = after;
    Some((tag, contents))
}

fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    take(input).filter(|(found, _)| *found == tag).map(|(_, contents)| contents)
}

/// The names in a DER certificate; `None` for one without a common name.
pub fn names(certificate: &[u8]) -> Option<Names> {
    let mut input = certificate;
    let mut certificate = expect(&mut input, SEQUENCE)?;
    let mut tbs = expect(&mut certificate, SEQUENCE)?;
    let mut ahead = tbs;
    if take(&mut ahead)?.0 == VERSION {
        tbs = ahead;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        take(&mut tbs)?;
    }
    let common_name = common_name(expect(&mut tbs, SEQUENCE)?)?;
    // Public key.
    take(&mut tbs)?;
    let mut dns_names = Vec::new();
    while let Some((tag, contents)) = take(&mut tbs) {
        if tag == EXTENSIONS {
            dns_names = dns_names_in(contents).unwrap_or_default();
        }
    }
    Some(Names { common_name, dns_names })
}

fn common_name(mut subject: &[u8]) -> Option<String> {
    while let Some((_, mut set)) = take(&mut subject) {
        let mut attribute = expect(&mut set, SEQUENCE)?;
        if expect(&mut attribute, OID)? == COMMON_NAME {
            return String::from_utf8(take(&mut attribute)?.1.to_vec()).ok();
        }
    }
    None
}

fn dns_names_in(mut extensions: &[u8]) -> Option<Vec<String>> {
    let mut list = expect(&mut extensions, SEQUENCE)?;
    while let Some((SEQUENCE, mut extension)) = take(&mut list) {
        if expect(&mut extension, OID)? != SUBJECT_ALT_NAME {
            continue;
        }
        // The critical flag may stand in between.
        let mut value = loop {
            match take(&mut extension)? {
                (OCTET_STRING, contents) => break contents,
                _ => continue,
            }
        };
        let mut names = expect(&mut value, SEQUENCE)?;
        let mut found = Vec::new();
        while let Some((tag, contents)) = take(&mut names) {
            if tag == DNS_NAME {
                found.push(String::from_utf8(contents.to_vec()).ok()?);
            }
        }
        return Some(found);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_certificate() {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(vec!["a.example".into(), "b.example".into()]).expect("params");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "org");
        params.distinguished_name.push(rcgen::DnType::CommonName, "the client");
        let certificate = params.self_signed(&key).expect("certificate");
        let found = names(certificate.der()).expect("names");
        assert_eq!(found.common_name, "the client");
        assert_eq!(found.dns_names, ["a.example", "b.example"]);
    }

    #[test]
    fn malformed_bytes_have_no_names() {
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new(vec!["a.example".into()]).expect("params");
        let certificate = params.self_signed(&key).expect("certificate").der().to_vec();
        for end in 0..certificate.len() / 2 {
            assert_eq!(names(&certificate[..end]), None);
        }
        assert_eq!(names(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}

//! Proofs of a password, for the two methods that servers use.
//!
//! Source: MySQL manual, "Native Authentication" and "Caching SHA-2 Pluggable Authentication".
//!
//! - `mysql_native_password`: SHA1(password) XOR SHA1(salt, SHA1(SHA1(password))); the server keeps the double hash.
//! - `caching_sha2_password`: SHA256(password) XOR SHA256(SHA256(SHA256(password)), salt); the server caches the
//!   double hash after a login that showed the password itself over TLS, a unix socket or RSA.

use mysql_common::scramble::{scramble_native, scramble_sha256};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Bytes of salt in a handshake.
pub(crate) const SALT_LEN: usize = 20;

fn xor(mut left: Vec<u8>, right: &[u8]) -> Vec<u8> {
    for (byte, key) in left.iter_mut().zip(right) {
        *byte ^= key;
    }
    left
}

/// Compares in a time that does not depend on where the difference is.
fn equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

/// What a client answers to a salt; empty for an empty password.
pub(crate) fn native_reply(password: &[u8], salt: &[u8]) -> Vec<u8> {
    scramble_native(salt, password).map(Vec::from).unwrap_or_default()
}

/// The double hash of a password, which stands in a server's user table as `*HEX`.
pub(crate) fn native_hash(password: &[u8]) -> [u8; 20] {
    Sha1::digest(Sha1::digest(password)).into()
}

pub(crate) fn native_matches(reply: &[u8], salt: &[u8], hash: &[u8; 20]) -> bool {
    if reply.len() != hash.len() {
        return false;
    }
    let mask = Sha1::new().chain_update(salt).chain_update(hash).finalize();
    equal(&Sha1::digest(xor(reply.to_vec(), &mask)), hash)
}

/// What a client answers to a salt; empty for an empty password.
pub(crate) fn sha2_reply(password: &[u8], salt: &[u8]) -> Vec<u8> {
    scramble_sha256(salt, password).map(Vec::from).unwrap_or_default()
}

pub(crate) fn sha2_hash(password: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(password)).into()
}

pub(crate) fn sha2_matches(reply: &[u8], salt: &[u8], hash: &[u8; 32]) -> bool {
    if reply.len() != hash.len() {
        return false;
    }
    let mask = Sha256::new().chain_update(hash).chain_update(salt).finalize();
    equal(&Sha256::digest(xor(reply.to_vec(), &mask)), hash)
}

/// The password with its NUL, masked by the salt, as it goes through RSA. Applied twice it is undone.
pub(crate) fn rsa_mask(mut bytes: Vec<u8>, salt: &[u8]) -> Vec<u8> {
    if !salt.is_empty() {
        for (byte, key) in bytes.iter_mut().zip(salt.iter().cycle()) {
            *byte ^= key;
        }
    }
    bytes
}

pub(crate) fn passwords_equal(left: &[u8], right: &[u8]) -> bool {
    // Hashed first, so that not even the length shows.
    equal(&Sha256::digest(left), &Sha256::digest(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &[u8; 20] = b"\x0a\x2f\x1d\x5c\x1a\x3e\x52\x7b\x5e\x7d\x40\x33\x21\x08\x2b\x5f\x66\x3a\x71\x44";

    #[test]
    fn native_hash_is_what_password_prints() {
        // SELECT PASSWORD('password') on a server.
        let hex = native_hash(b"password").iter().map(|byte| format!("{byte:02X}")).collect::<String>();
        assert_eq!(hex, "2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
    }

    #[test]
    fn only_the_right_password_and_salt_match() {
        let hash = native_hash(b"secret");
        assert!(native_matches(&native_reply(b"secret", SALT), SALT, &hash));
        assert!(!native_matches(&native_reply(b"Secret", SALT), SALT, &hash));
        assert!(!native_matches(&native_reply(b"secret", &SALT[1..]), SALT, &hash));
        assert!(!native_matches(b"", SALT, &hash));
        let hash = sha2_hash(b"secret");
        assert!(sha2_matches(&sha2_reply(b"secret", SALT), SALT, &hash));
        assert!(!sha2_matches(&sha2_reply(b"Secret", SALT), SALT, &hash));
        assert!(!sha2_matches(&sha2_reply(b"secret", b"x"), SALT, &hash));
        assert!(native_reply(b"", SALT).is_empty() && sha2_reply(b"", SALT).is_empty());
    }

    #[test]
    fn the_mask_undoes_itself() {
        let text = b"a password that is longer than the salt\0".to_vec();
        assert_ne!(rsa_mask(text.clone(), SALT), text);
        assert_eq!(rsa_mask(rsa_mask(text.clone(), SALT), SALT), text);
    }
}

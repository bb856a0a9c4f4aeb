//! Logging in.
//!
//! Methods: `mysql_native_password`, `caching_sha2_password` with its fast path, in full over a unix socket, TLS or
//! RSA, and the switch from one to another; `unix_socket` and `auth_socket`, where the server looks at the peer.
//! The password itself never travels over an unprotected TCP connection.

use rsa::pkcs8::DecodePublicKey;

use super::connection::io_lost;
use super::{ClientError, ConnectParams};
use crate::constants::{MAX_FRAME, auth_plugin, capability, charset, errno, mariadb_capability};
use crate::packet::{Cursor, PacketReader, PacketWriter, WireError, put_lenenc, put_lenenc_bytes};
use crate::scramble;
use crate::stream::{Prefixed, ReadHalf, Socket, WriteHalf, reunite, split_tls};
use crate::wire;

/// Largest packet a server may send before login is complete.
const MAX_LOGIN_PACKET: usize = 1 << 20;
/// Round trips a server may ask for: switch, key request, proof, and some to spare.
const MAX_LOGIN_ROUNDS: usize = 8;

/// A connection that is logged in, in parts.
pub(super) struct LoggedIn {
    pub reader: PacketReader<ReadHalf>,
    pub writer: PacketWriter<WriteHalf>,
    pub thread_id: u32,
    pub server_version: String,
    pub capabilities: u32,
    /// Those of [`mariadb_capability`].
    pub mariadb_capabilities: u32,
    pub status: u16,
}

/// The first packet of a server.
#[derive(Debug, PartialEq, Eq)]
struct Greeting {
    version: String,
    thread_id: u32,
    salt: Vec<u8>,
    capabilities: u32,
    /// Those of [`mariadb_capability`]; none of a server that is not MariaDB.
    mariadb_capabilities: u32,
    plugin: String,
}

fn parse_greeting(packet: &[u8]) -> Result<Greeting, WireError> {
    let mut cursor = Cursor::new(packet);
    if cursor.u8()? != 10 {
        return Err(WireError::Unexpected);
    }
    let version = String::from_utf8_lossy(cursor.nul_bytes()?).into_owned();
    let thread_id = cursor.u32()?;
    let mut salt = cursor.bytes(8)?.to_vec();
    cursor.u8()?;
    let mut capabilities = u32::from(cursor.u16()?);
    // Character set and status of no interest: ours are set by the response, the status comes with the OK.
    cursor.bytes(3)?;
    capabilities |= u32::from(cursor.u16()?) << 16;
    let salt_len = usize::from(cursor.u8()?);
    cursor.bytes(6)?;
    // MySQL leaves these bytes empty, and says that it is MySQL by this flag.
    let more = cursor.u32()?;
    let mariadb_capabilities = if capabilities & capability::LONG_PASSWORD == 0 { more } else { 0 };
    if capabilities & capability::SECURE_CONNECTION != 0 {
        let second = cursor.bytes(salt_len.saturating_sub(8).max(13))?;
        salt.extend_from_slice(second.strip_suffix(&[0]).unwrap_or(second));
    }
    let plugin = if capabilities & capability::PLUGIN_AUTH != 0 {
        // Some servers leave the last NUL out.
        let rest = cursor.rest();
        String::from_utf8_lossy(rest.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
    } else {
        auth_plugin::NATIVE.to_owned()
    };
    Ok(Greeting { version, thread_id, salt, capabilities, mariadb_capabilities, plugin })
}

/// The id of a collation given by character set name or by number.
fn collation(name: &str) -> Result<u8, ClientError> {
    charset::by_name(name)
        .or_else(|| name.parse().ok())
        .ok_or_else(|| ClientError::connection(2019, format!("Can't initialize character set {name}")))
}

/// What is sent as the first proof for a method; empty when it has none to send yet.
fn first_proof(plugin: &str, password: &str, salt: &[u8]) -> Result<Vec<u8>, ClientError> {
    match plugin {
        auth_plugin::NATIVE => Ok(scramble::native_reply(password.as_bytes(), salt)),
        auth_plugin::CACHING_SHA2 => Ok(scramble::sha2_reply(password.as_bytes(), salt)),
        "unix_socket" | "auth_socket" => Ok(Vec::new()),
        other => Err(ClientError::connection(
            errno::CR_AUTH_PLUGIN,
            format!("Authentication plugin '{other}' cannot be used: it is not built into this client"),
        )),
    }
}

/// Logs in on a fresh socket.
pub(super) async fn login(socket: Socket, params: &ConnectParams) -> Result<LoggedIn, ClientError> {
    let unix = matches!(socket, Socket::Unix(_));
    let (read, write) = socket.split();
    let mut reader = PacketReader::new(read, MAX_LOGIN_PACKET);
    let mut writer = PacketWriter::new(write);
    let packet = reader.next().await.map_err(io_lost)?;
    let packet = reader.get(packet);
    if packet.first() == Some(&wire::ERR) {
        return Err(ClientError::Server(wire::parse_err(packet).map_err(ClientError::malformed)?));
    }
    let greeting = parse_greeting(packet).map_err(ClientError::malformed)?;
    if greeting.capabilities & capability::PROTOCOL_41 == 0 {
        return Err(ClientError::malformed("the server speaks the protocol of before 4.1"));
    }
    let mut wanted = capability::LONG_PASSWORD
        | capability::LONG_FLAG
        | capability::PROTOCOL_41
        | capability::TRANSACTIONS
        | capability::SECURE_CONNECTION
        | capability::MULTI_RESULTS
        | capability::PLUGIN_AUTH
        | capability::PLUGIN_AUTH_LENENC
        | capability::DEPRECATE_EOF;
    if params.client_found_rows {
        wanted |= capability::FOUND_ROWS;
    }
    if params.multi_statements {
        wanted |= capability::MULTI_STATEMENTS;
    }
    if !params.db_name.is_empty() {
        wanted |= capability::CONNECT_WITH_DB;
    }
    let mut capabilities = wanted & greeting.capabilities;
    let mariadb_capabilities = mariadb_capability::STMT_BULK_OPERATIONS & greeting.mariadb_capabilities;
    let head = |capabilities: u32| -> Result<Vec<u8>, ClientError> {
        let mut head = Vec::with_capacity(128);
        head.extend_from_slice(&capabilities.to_le_bytes());
        head.extend_from_slice(&(MAX_FRAME as u32 + 1).to_le_bytes());
        head.push(collation(&params.charset)?);
        head.extend_from_slice(&[0; 19]);
        head.extend_from_slice(&mariadb_capabilities.to_le_bytes());
        Ok(head)
    };
    writer.set_seq(reader.seq());
    let mut protected = unix;
    if let (Some(tls), false) = (&params.tls, unix) {
        if greeting.capabilities & capability::SSL == 0 {
            return Err(ClientError::connection(
                errno::CR_SSL_CONNECTION,
                "SSL connection error: SSL is required but the server doesn't support it",
            ));
        }
        capabilities |= capability::SSL;
        writer.packet(&head(capabilities)?);
        writer.flush().await.map_err(io_lost)?;
        let (seq, write) = (writer.seq(), writer.into_inner());
        let (read, rest) = reader.into_parts();
        let socket = reunite(read, write).map_err(io_lost)?;
        let ssl_error = |error: &dyn std::fmt::Display| {
            ClientError::connection(errno::CR_SSL_CONNECTION, format!("SSL connection error: {error}"))
        };
        let name = rustls::pki_types::ServerName::try_from(tls.server_name.clone()).map_err(|e| ssl_error(&e))?;
        let stream = tokio_rustls::TlsConnector::from(tls.config.clone())
            .connect(name, Prefixed::new(rest, socket))
            .await
            .map_err(|e| ssl_error(&e))?;
        let (read, write) = split_tls(stream.into());
        reader = PacketReader::new(read, MAX_LOGIN_PACKET);
        writer = PacketWriter::new(write);
        writer.set_seq(seq);
        protected = true;
    }

    let mut plugin = greeting.plugin;
    let mut salt = greeting.salt;
    // A default method of the server that this client lacks is not yet an error: the account may have another.
    let proof = match first_proof(&plugin, &params.password, &salt) {
        Ok(proof) => proof,
        Err(_) => {
            plugin = auth_plugin::NATIVE.to_owned();
            scramble::native_reply(params.password.as_bytes(), &salt)
        }
    };
    let mut response = head(capabilities)?;
    response.extend_from_slice(params.user.as_bytes());
    response.push(0);
    if capabilities & capability::PLUGIN_AUTH_LENENC != 0 {
        put_lenenc_bytes(&mut response, &proof);
    } else {
        put_lenenc(&mut response, proof.len() as u64);
        response.extend_from_slice(&proof);
    }
    if capabilities & capability::CONNECT_WITH_DB != 0 {
        response.extend_from_slice(params.db_name.as_bytes());
        response.push(0);
    }
    if capabilities & capability::PLUGIN_AUTH != 0 {
        response.extend_from_slice(plugin.as_bytes());
        response.push(0);
    }
    writer.packet(&response);
    writer.flush().await.map_err(io_lost)?;
    reader.set_seq(writer.seq());

    let ok = {
        let mut asked_for_key = false;
        let mut rounds = 0;
        loop {
            rounds += 1;
            if rounds > MAX_LOGIN_ROUNDS {
                return Err(ClientError::malformed("the login does not end"));
            }
            let packet = reader.next().await.map_err(io_lost)?;
            let packet = reader.get(packet);
            let answer: Vec<u8> = match packet {
                [wire::OK, ..] => break wire::parse_ok(packet).map_err(ClientError::malformed)?,
                [wire::ERR, ..] => {
                    return Err(ClientError::Server(wire::parse_err(packet).map_err(ClientError::malformed)?));
                }
                [wire::EOF] => {
                    return Err(ClientError::connection(
                        errno::CR_AUTH_PLUGIN,
                        "Authentication plugin 'mysql_old_password' cannot be used: it is not built into this client",
                    ));
                }
                [wire::EOF, rest @ ..] => {
                    let mut cursor = Cursor::new(rest);
                    plugin = String::from_utf8_lossy(cursor.nul_bytes().map_err(ClientError::malformed)?).into_owned();
                    let rest = cursor.rest();
                    salt = rest.strip_suffix(&[0]).unwrap_or(rest).to_vec();
                    // An answer is owed even without a password: an empty packet.
                    first_proof(&plugin, &params.password, &salt)?
                }
                [1, 3] if plugin == auth_plugin::CACHING_SHA2 => continue,
                [1, 4] if plugin == auth_plugin::CACHING_SHA2 && protected => {
                    let mut clear = params.password.clone().into_bytes();
                    clear.push(0);
                    clear
                }
                [1, 4] if plugin == auth_plugin::CACHING_SHA2 => {
                    asked_for_key = true;
                    vec![2]
                }
                [1, pem @ ..] if asked_for_key => encrypted(pem, &params.password, &salt)?,
                _ => return Err(ClientError::malformed("unexpected packet in the login")),
            };
            writer.set_seq(reader.seq());
            writer.packet(&answer);
            writer.flush().await.map_err(io_lost)?;
            reader.set_seq(writer.seq());
        }
    };
    reader.set_max_packet(params.max_allowed_packet);
    // MariaDB says 5.5.5 first, so that old MySQL replicas accept it.
    let server_version = match greeting.version.strip_prefix("5.5.5-") {
        Some(rest) if rest.contains("MariaDB") => rest.to_owned(),
        _ => greeting.version,
    };
    Ok(LoggedIn {
        reader,
        writer,
        thread_id: greeting.thread_id,
        server_version,
        capabilities,
        mariadb_capabilities,
        status: ok.status,
    })
}

/// The password for the server's eyes only.
fn encrypted(pem: &[u8], password: &str, salt: &[u8]) -> Result<Vec<u8>, ClientError> {
    let bad = |error: &dyn std::fmt::Display| {
        ClientError::connection(errno::CR_AUTH_PLUGIN, format!("caching_sha2_password: the server's key: {error}"))
    };
    let pem = std::str::from_utf8(pem).map_err(|e| bad(&e))?;
    let key = rsa::RsaPublicKey::from_public_key_pem(pem.trim_end_matches('\0')).map_err(|e| bad(&e))?;
    let mut clear = password.as_bytes().to_vec();
    clear.push(0);
    let masked = scramble::rsa_mask(clear, salt);
    key.encrypt(&mut rsa::rand_core::OsRng, rsa::Oaep::new::<sha1::Sha1>(), &masked).map_err(|e| bad(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_of_a_real_server() {
        // MariaDB 10.11 on Debian 12.
        let mut packet =
            b"\x0a5.5.5-10.11.6-MariaDB\0\x1f\0\0\0abcdefgh\0\xfe\xf7\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\x1d\0\0\0"
                .to_vec();
        packet.extend_from_slice(b"ijklmnopqrst\0mysql_native_password\0");
        let greeting = parse_greeting(&packet).expect("a greeting");
        assert_eq!(greeting.salt, b"abcdefghijklmnopqrst");
        assert_eq!((greeting.thread_id, greeting.plugin.as_str()), (31, "mysql_native_password"));
        assert_ne!(greeting.capabilities & capability::DEPRECATE_EOF, 0);
        assert_ne!(greeting.mariadb_capabilities & mariadb_capability::STMT_BULK_OPERATIONS, 0);
        for cut in 0..packet.len() - 24 {
            assert!(parse_greeting(&packet[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn character_sets_by_name_and_number() {
        assert_eq!(collation("utf8mb4"), Ok(45));
        assert_eq!(collation("255"), Ok(255));
        assert_eq!(collation("klingon").map_err(|error| error.errno()), Err(2019));
    }
}

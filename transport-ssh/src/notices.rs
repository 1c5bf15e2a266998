//! What ssh says of itself although nothing is wrong.

/// What such a line begins with. The texts are OpenSSH's, from 8.4 to 10.x.
const STARTS: &[&str] = &[
    // With -v, and of a proxy's ssh with -v.
    "debug1: ",
    "debug2: ",
    "debug3: ",
    "OpenSSH_",
    "Authenticated to ",
    "Authenticated using ",
    "Transferred: sent ",
    "Bytes per second: sent ",
    // Host keys.
    "Warning: Permanently added ",
    "Warning: the ",
    "Matching host key in ",
    "Offending key for IP in ",
    "Host key fingerprint is ",
    "The authenticity of host ",
    "This key is not known by any other names",
    "This host key is known by the following other names/addresses:",
    "Learned new hostkey: ",
    "Adding new key for ",
    "Deprecating obsolete hostkey: ",
    "The server has updated its host keys",
    "These changes were verified by the existing trusted key.",
    "WARNING: The host key fingerprint is ",
    "WARNING: GSSAPI ",
    // Algorithms; OpenSSH 10.1 and later.
    "** WARNING: connection is not using a post-quantum key exchange algorithm.",
    "** This session may be vulnerable to \"store now, decrypt later\" attacks.",
    "** The server may need to be upgraded. See ",
    // Keys and agents, where another way to log in was found.
    "Load key \"",
    "Warning: Identity file ",
    "no such identity: ",
    "sign_and_send_pubkey: ",
    "Confirm user presence for key ",
    "User presence confirmed",
    "Enter PIN for ",
    "Enter passphrase for ",
    "Agent key ",
    "ssh_askpass: ",
    "Permission denied, please try again.",
    "WARNING: UNPROTECTED PRIVATE KEY FILE!",
    "Permissions 0",
    "It is required that your private key files are NOT accessible by others.",
    "This private key will be ignored.",
    // Sessions.
    "Pseudo-terminal will not be allocated",
    "PTY allocation request failed on channel ",
    "X11 forwarding request failed",
    "Warning: untrusted X11 forwarding setup failed",
    "Warning: No xauth data",
    "Warning: remote port forwarding failed for listen port ",
    "Could not request local forwarding.",
    "bind [",
    "channel_setup_fwd_listener",
    "ControlSocket ",
    "Control socket connect(",
    "mux_client_request_session: ",
    "Killed by signal ",
    "Connection to ",
    "Shared connection to ",
    "setsockopt ",
];

/// What stands anywhere in such a line.
const PARTS: &[&str] =
    &[" key fingerprint is SHA256:", " key fingerprint is MD5:", " key fingerprint is: SHA256:"];

/// The text without the lines that ssh says of itself although nothing is wrong: notices about host keys and algorithms, what it
/// tells with `-v`, and the picture of a host key. They are never the reason for which a program at the other end ended.
///
/// ```
/// let stderr = "Warning: Permanently added 'h' (ED25519) to the list of known hosts.\nerror: no space left\n";
/// assert_eq!(ncc_transport_ssh::without_notices(stderr), "error: no space left\n");
/// ```
pub fn without_notices(stderr: &str) -> String {
    let mut kept = String::new();
    for line in stderr.lines().filter(|line| !is_notice(line.trim())) {
        kept.extend([line, "\n"]);
    }
    kept
}

fn is_notice(line: &str) -> bool {
    STARTS.iter().any(|start| line.starts_with(start))
        || PARTS.iter().any(|part| line.contains(part))
        || is_of_a_picture(line)
        || (!line.is_empty() && line.bytes().all(|byte| byte == b'@'))
        || line.starts_with("@         WARNING: UNPROTECTED PRIVATE KEY FILE!")
}

/// A row of VisualHostKey's picture: `+--[ED25519 256]--+`, `|     .o+B*. |`, `+----[SHA256]-----+`.
fn is_of_a_picture(line: &str) -> bool {
    let inner = |edge: char| line.strip_prefix(edge).and_then(|rest| rest.strip_suffix(edge));
    // 17 columns, and the alphabet of OpenSSH's drunken bishop.
    let row =
        |inner: &str| inner.len() == 17 && inner.bytes().all(|byte| b" .o+=*BOX@%&#/^SE".contains(&byte));
    let border = |inner: &str| {
        inner.len() == 17 && inner.starts_with('-') && inner.contains('[') && inner.ends_with('-')
    };
    inner('|').is_some_and(row) || inner('+').is_some_and(border)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_of_itself_is_left_out() {
        let said = "\
Warning: Permanently added '[127.0.0.1]:2299' (ED25519) to the list of known hosts.\r
** WARNING: connection is not using a post-quantum key exchange algorithm.
** This session may be vulnerable to \"store now, decrypt later\" attacks.
** The server may need to be upgraded. See https://openssh.com/pq.html
Host key fingerprint is SHA256:K5dMrVAE5ldOa0KlT6hYAkjUbhDOT6FqzDfeYf2CNOs
+--[ED25519 256]--+
|    .o+oooo...   |
|   . .==ooo*+    |
|        S  E     |
+----[SHA256]-----+
OpenSSH_10.1p1, OpenSSL 3.5.1 1 Jul 2025
debug1: Reading configuration data /etc/ssh/ssh_config
ED25519 key fingerprint is SHA256:K5dMrVAE5ldOa0KlT6hYAkjUbhDOT6FqzDfeYf2CNOs.
mux_client_request_session: session request failed: Session open refused by peer
Connection to h closed.
Killed by signal 15.
";
        assert_eq!(without_notices(said), "");
    }

    #[test]
    fn what_the_host_says_stays() {
        let said = "error: cannot open connection to 'x'\n| a table |\n+---+\nwarning: the disk is full\n\n";
        assert_eq!(without_notices(said), said);
    }
}

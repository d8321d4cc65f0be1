//! Certificates for servers that speak TLS.

use std::path::Path;
use std::process::Command;

use super::servers::run;

/// Makes `server.crt` and `server.key`, for `localhost` alone, signed by `ca.pem`, and an `other-ca.pem` that
/// has nothing to do with them.
#[track_caller]
pub(crate) fn make_certificates(folder: &Path) {
    let script = r#"
        cd "$1"
        key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        for ca in ca other-ca; do openssl req -x509 $key -keyout $ca.key -out $ca.pem -subj /CN=$ca -days 2; done
        openssl req $key -keyout server.key -out server.csr -subj /CN=localhost
        echo subjectAltName=DNS:localhost > san
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile san
    "#;
    run(Command::new("bash").args(["-ec", script, "certificates"]).arg(folder)).unwrap();
}

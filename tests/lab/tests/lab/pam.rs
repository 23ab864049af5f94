//! PostgreSQL's own `pam` method with tokens: what the login front imitates, done by the server itself.
//!
//! It needs root, for a file in /etc/pam.d, and a server with PAM, a C compiler and PAM's headers. Where one is missing it
//! says so and passes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use postern_lab::{Lab, LabConfig, Outcome, Refusal};
use rcgen::CertifiedKey;

use crate::client::{Failure, Login};

#[test]
fn postgres_with_pam_judges_as_the_front_does() {
    let directory = tempfile::Builder::new()
        .prefix("postern-lab-pam-")
        .tempdir()
        .unwrap();
    let setup = match Setup::new(directory.path()) {
        Ok(setup) => setup,
        Err(reason) => return eprintln!("not tried: {reason}"),
    };
    let lab = Lab::start(setup.config()).unwrap();
    lab.serve_pam(&setup.socket).unwrap();
    let front = Login::good(&lab, "app_ro");
    let good = Login {
        address: lab.postgres().address(),
        ca: setup.certificate,
        ..front.clone()
    };
    assert_eq!(
        good.go().unwrap().query("SELECT current_user").unwrap(),
        ["app_ro"]
    );
    assert_eq!(lab.logins().pop().unwrap().outcome, Outcome::Accepted);

    let mut wrong = lab.token_params("app_ro").unwrap();
    wrong.port = 6543;
    let failure = Login {
        password: wrong.mint(),
        ..good
    }
    .go()
    .unwrap_err();
    let text = "PAM authentication failed for user \"app_ro\"";
    assert_eq!(failure, Failure::Answer("28000".into(), text.into()));
    assert_eq!(
        lab.logins().pop().unwrap().outcome,
        Outcome::Refused(Refusal::WrongPort)
    );
    assert_eq!(
        Login {
            password: wrong.mint(),
            ..front
        }
        .go()
        .unwrap_err(),
        failure,
        "the front says the same"
    );
}

/// The module, its service, and a certificate for the server.
struct Setup {
    socket: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    service: Service,
}

impl Setup {
    fn new(directory: &Path) -> Result<Self, String> {
        let user = Lab::server_user()
            .map_err(|error| error.to_string())?
            .ok_or("not root")?;
        if !Path::new("/usr/include/security/pam_modules.h").exists() {
            return Err("no PAM headers (libpam0g-dev)".to_owned());
        }
        let server =
            std::env::var_os("PGBIN").map_or_else(|| PathBuf::from("/usr/lib/postgresql"), PathBuf::from);
        let server = fs::canonicalize(server).map_err(|error| error.to_string())?;
        if !server.starts_with("/usr/lib/postgresql") {
            return Err(format!("{} may be built without PAM", server.display()));
        }
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        let module = directory.join("pam_postern_lab.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/pam/pam_postern_lab.c");
        let mut compiler = Command::new("cc");
        compiler
            .args([
                "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", source, "-lpam", "-o",
            ])
            .arg(&module);
        let output = compiler
            .output()
            .map_err(|error| format!("no C compiler: {error}"))?;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );

        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([LabConfig::default().endpoint]).unwrap();
        let (certificate, key) = (directory.join("server.crt"), directory.join("server.key"));
        fs::write(&certificate, cert.pem()).unwrap();
        fs::write(&key, signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&key, Some(user.0), Some(user.1)).unwrap();
        let socket = directory.join("verifier");
        let service = Service::new(&module, &socket);
        Ok(Self {
            socket,
            certificate,
            key,
            service,
        })
    }

    fn config(&self) -> LabConfig {
        let setting = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
        LabConfig {
            postgres_settings: vec![
                setting("ssl", "on".as_ref()),
                setting("ssl_cert_file", &self.certificate),
                setting("ssl_key_file", &self.key),
            ],
            postgres_hba: vec![format!(
                "hostssl all +rds_iam 127.0.0.1/32 pam pamservice={}",
                self.service.name()
            )],
            ..LabConfig::default()
        }
    }
}

/// A file in /etc/pam.d that goes away again.
struct Service(PathBuf);

impl Service {
    fn new(module: &Path, socket: &Path) -> Self {
        let file = Self(PathBuf::from(format!(
            "/etc/pam.d/postern-lab-{}",
            std::process::id()
        )));
        let (module, socket) = (module.display(), socket.display());
        fs::write(
            &file.0,
            format!("auth required {module} {socket}\naccount required {module}\n"),
        )
        .unwrap();
        file
    }

    fn name(&self) -> &str {
        self.0.file_name().unwrap().to_str().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

//! nginx as a plain reverse proxy: what passing bytes costs on this machine when nobody looks at them.

use std::{fs, path::Path, process::Command, time::Duration};

use super::cpu_seconds;
use crate::{
    curl::{self, Question},
    service::Service,
    stack::{StateDir, free_port},
    stop::Stop,
};

/// How long it may take until it answers.
const START: Duration = Duration::from_secs(10);

/// A running nginx.
pub(super) struct Nginx {
    service: Service,
    /// `https://localhost:PORT`
    pub(super) url: String,
}

impl Nginx {
    /// Starts one in front of `provider`, which is `ADDRESS:PORT`, with the certificate `cert.pem` and its `key.pem` in `tls`.
    pub(super) fn start(provider: &str, tls: &Path, state: &StateDir, stop: &Stop) -> anyhow::Result<Self> {
        let dir = state.make("nginx")?;
        let port = free_port()?;
        let config = dir.join("nginx.conf");
        fs::write(&config, configuration(provider, port, tls))?;
        let mut command = Command::new("nginx");
        // Debian keeps it where administrators' tools are, which a user's PATH may lack.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        command.args(["-e", "stderr", "-p"]).arg(&dir).arg("-c").arg(&config);
        let mut service = Service::start("nginx", &mut command, state.log("nginx"))?;
        let url = format!("https://localhost:{port}");
        let ca_file = tls.join("cert.pem");
        service.until(stop, START, "nginx to answer", |_| {
            Ok(curl::ask(&Question { url: &url, ca_file: Some(&ca_file), ..Question::default() })?.map(drop))
        })?;
        Ok(Self { service, url })
    }

    /// Processor time of all its processes so far.
    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let master = self.service.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
        let workers = children.split_whitespace().filter_map(|id| id.parse().ok());
        workers.chain([master]).map(cpu_seconds).sum()
    }
}

/// As good as nginx can be: it writes no access log, checks nothing, keeps its connections on both sides, and its workers share the
/// callers evenly. The Lab is measured against that, with all of its own books kept.
fn configuration(provider: &str, port: u16, tls: &Path) -> String {
    let tls = tls.display();
    format!(
        r#"daemon off;
worker_processes 2;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path temp;
  proxy_temp_path temp;
  fastcgi_temp_path temp;
  uwsgi_temp_path temp;
  scgi_temp_path temp;
  upstream provider {{
    server {provider};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} ssl reuseport;
    ssl_certificate "{tls}/cert.pem";
    ssl_certificate_key "{tls}/key.pem";
    ssl_protocols TLSv1.3;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"#
    )
}

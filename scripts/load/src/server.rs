//! The server under test, and nginx beside it, on scratch folders.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running configsync-server.
pub struct Server {
    child: Child,
    pub port: u16,
    pub token: String,
    pub ready_ms: f64,
}

impl Server {
    /// Starts it; the token is new on a folder without users, else the one given.
    pub fn start(binary: &Path, data: &Path, token: &str) -> Server {
        Server::start_on(binary, data, token, 0)
    }

    /// The same on a certain port.
    pub fn start_on(binary: &Path, data: &Path, token: &str, port: u16) -> Server {
        let begin = Instant::now();
        let mut child = Command::new(binary)
            .args(["serve", "--init-user", "a@example.com", "--listen"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut token = token.to_owned();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if line.starts_with("cs_") {
                token.clone_from(&line);
            }
            if let Some(port) =
                line.strip_prefix("configsync-server listening on http://127.0.0.1:")
            {
                let ready_ms = begin.elapsed().as_secs_f64() * 1000.0;
                return Server { child, port: port.parse().unwrap(), token, ready_ms };
            }
        }
        panic!("the server did not start");
    }

    /// A number of kibibytes from the kernel: VmRSS, VmHWM.
    pub fn kib(&self, name: &str) -> u64 {
        kib(self.child.id(), name)
    }

    /// Forgets the peak so far.
    pub fn reset_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// A request of this user.
    pub fn request(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
        request(&self.token, method, path, fields, body)
    }
}

/// A request of who holds this token.
pub fn request(token: &str, method: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {token}\r\n{fields}\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn kib(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// nginx with WebDAV, sendfile and Basic auth.
pub struct Nginx {
    child: Child,
    pub port: u16,
}

/// `a:b` as Basic credentials.
pub const BASIC: &str = "Authorization: Basic YTpi\r\n";

impl Nginx {
    /// Starts it where it is installed, on a folder with these files.
    pub fn start(dir: &Path, files: &[(&str, &[u8])]) -> Option<Nginx> {
        Command::new("nginx").arg("-v").output().ok()?;
        let root = dir.join("www");
        fs::create_dir_all(&root).unwrap();
        for (name, bytes) in files {
            fs::write(root.join(name), bytes).unwrap();
        }
        fs::write(dir.join("htpasswd"), "a:{PLAIN}b\n").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let user = String::from_utf8(Command::new("id").arg("-un").output().ok()?.stdout).ok()?;
        let (user, dir_text, root) = (user.trim(), dir.display(), root.display());
        let config = format!(
            "daemon off; user {user}; worker_processes 2; pid {dir_text}/pid;\n\
             error_log {dir_text}/error.log;\nevents {{}}\nhttp {{ access_log off; sendfile on;\n\
             tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000; client_max_body_size 64m;\n\
             client_body_buffer_size 1m; client_body_temp_path {dir_text}/body;\n\
             proxy_temp_path {dir_text}/p; fastcgi_temp_path {dir_text}/f;\n\
             uwsgi_temp_path {dir_text}/u; scgi_temp_path {dir_text}/s;\n\
             server {{ listen 127.0.0.1:{port}; root {root}; dav_methods PUT;\n\
             auth_basic x; auth_basic_user_file {dir_text}/htpasswd; }} }}\n"
        );
        let path: PathBuf = dir.join("nginx.conf");
        fs::write(&path, config).unwrap();
        let child = Command::new("nginx")
            .arg("-p")
            .arg(dir)
            .arg("-e")
            .arg(dir.join("error.log"))
            .arg("-c")
            .arg(&path)
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(Nginx { child, port });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM lets the master end its workers.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

//! A daemon of our own: private socket, HTTP port and state directory; ended when dropped.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::args;
use crate::grpc::Client;
use crate::run::{Outcome, Running, command, run, wait_for};

/// How long a daemon may take until it serves.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Where a daemon lives. It outlives the daemon, so that another one can be started in its place.
#[derive(Debug)]
pub struct Site {
    dir: TempDir,
    http: SocketAddr,
}

impl Site {
    /// A fresh place.
    ///
    /// # Errors
    /// When there is no directory or port to be had.
    pub fn new() -> Result<Self> {
        // The port is free now; that somebody takes it before the daemon does is unlikely enough.
        let http = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        Ok(Self { dir: TempDir::new()?, http })
    }

    /// Path of the gRPC socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("profiler.sock")
    }

    /// The gRPC socket as `--listen` and `--connect` take it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The daemon's state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// `profiler daemon` for this place, ready to start.
    ///
    /// # Errors
    /// When there is no binary.
    pub fn command(&self) -> Result<Command> {
        command(args![
            "daemon",
            "--listen",
            self.url(),
            "--http",
            self.http.to_string(),
            "--state-dir",
            self.state()
        ])
    }

    /// Starts a daemon, without waiting for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self) -> Result<Running> {
        Running::start(self.command()?)
    }

    /// Starts a daemon and waits until it serves.
    ///
    /// # Errors
    /// When it ends or does not serve in time; the message holds what it said.
    pub fn start(&self) -> Result<Daemon<'_>> {
        self.start_with(&[])
    }

    /// Starts a daemon with more arguments and waits until it serves.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(&self, arguments: &[&str]) -> Result<Daemon<'_>> {
        let mut command = self.command()?;
        command.args(arguments);
        self.start_by(command)
    }

    /// Waits until the daemon serves that this command, [`Self::command`] in one form or another, starts.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_by(&self, command: Command) -> Result<Daemon<'_>> {
        let mut running = Running::start(command)?;
        let ready = wait_for("the daemon to serve", READY_LIMIT, || {
            if !running.is_running()? {
                // No use waiting any longer: say so at once, as an answer.
                return Ok(Some(false));
            }
            Ok(Client::connect(&self.url())?.is_serving()?.then_some(true))
        });
        let stderr = running.stderr();
        let alive = ready.with_context(|| format!("the daemon said:\n{stderr}"))?;
        ensure!(alive, "the daemon ended instead of serving; it said:\n{stderr}");
        Ok(Daemon { site: self, running })
    }

    /// `GET PATH` over HTTP: the status code and the body.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        self.ask(&format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"), b"")
    }

    /// `GET PATH` over HTTP, with a bearer token: the status code and the body.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get_with(&self, path: &str, token: &str) -> Result<(u16, String)> {
        let head = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        self.ask(&head, b"")
    }

    /// `POST PATH` over HTTP, with a bearer token: the status code and the body.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn post(&self, path: &str, token: &str, body: &[u8]) -> Result<(u16, String)> {
        let head = format!(
            "POST {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.ask(&head, body)
    }

    /// HTTP/1.0: the answer comes in one piece and ends the connection.
    fn ask(&self, head: &str, body: &[u8]) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.http).with_context(|| format!("nobody at {}", self.http))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(head.as_bytes())?;
        // Who is refused may be cut off before all is sent; the answer says why.
        let _cut_off = stream.write_all(body);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("no end of the headers")?;
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status code")?;
        Ok((code, body.to_owned()))
    }

    /// Runs a client command of the CLI against this place.
    ///
    /// # Errors
    /// When it cannot be run or does not end. Its exit code is not judged.
    pub fn cli(&self, arguments: &[&str]) -> Result<Outcome> {
        let mut all = args![];
        all.extend(arguments.iter().map(std::ffi::OsString::from));
        all.extend(args!["--connect", self.url()]);
        run(all)
    }
}

/// A daemon that serves.
#[derive(Debug)]
pub struct Daemon<'a> {
    /// Where it lives.
    pub site: &'a Site,
    /// The process.
    pub running: Running,
}

impl Daemon<'_> {
    /// A client that has learnt the API from the daemon's reflection.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn client(&self) -> Result<Client> {
        let mut client = Client::connect(&self.site.url())?;
        client.learn()?;
        Ok(client)
    }
}

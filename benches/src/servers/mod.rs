//! Real servers beside us, each started by the suite that needs it, on free ports and sockets of its own folder, and ended
//! with it. One file for each: how it is configured, and how it is filled.
//!
//! What is here is common to all: finding the program, keeping it on the servers' core, waiting until it answers, asking
//! the kernel what it has used, and ending it.

pub mod hyper;
pub mod keyfob;
pub mod nginx;
pub mod postgres;
pub mod redis;

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::cores;

/// How often it is looked whether a server answers, or has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many looks a server is given to get ready: half a minute, for a cold disk.
const LOOKS_TO_GET_READY: usize = 1_500;
/// How many looks a server is given to end in order.
const LOOKS_TO_END: usize = 250;
/// The unit of processor times in `/proc`: fixed by Linux for what it shows to programs.
const TICK: Duration = Duration::from_millis(10);
/// Where programs are looked for besides `PATH`: administrators' programs are not on everybody's.
const FURTHER_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// Loopback.
    Tcp(SocketAddr),
    /// A socket's path.
    Unix(PathBuf),
}

/// A running server: ended, with all it started, when it is dropped.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    /// Which signal ends it in order.
    farewell: &'static str,
    child: Child,
    folder: TempDir,
}

/// A user without rights, for servers that refuse to run with all of them.
#[derive(Clone, Copy, Debug)]
struct Unprivileged {
    user: u32,
    group: u32,
}

// === impl Address ===

impl Address {
    /// A free port of loopback. Somebody may take it before the server does; then the server says so.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn free() -> Result<SocketAddr> {
        let free = TcpListener::bind(("127.0.0.1", 0)).context("a free port")?;
        free.local_addr().context("its number")
    }

    fn answers(&self) -> bool {
        match self {
            Self::Tcp(address) => TcpStream::connect(address).is_ok(),
            Self::Unix(path) => UnixStream::connect(path).is_ok(),
        }
    }

    /// `TCP` or `Unix socket`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "TCP",
            Self::Unix(_) => "Unix socket",
        }
    }
}

// === impl Server ===

impl Server {
    /// Starts a command made by [`command`] and waits until it is ready; `farewell` is the signal that ends it in order.
    fn start(
        name: &'static str,
        farewell: &'static str,
        folder: TempDir,
        mut command: Command,
        is_ready: impl Fn(&Self) -> bool,
    ) -> Result<Self> {
        let log = File::create(folder.path().join("log")).context("a file for what it says")?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        let mut server = Self {
            name,
            farewell,
            child,
            folder,
        };
        for _ in 0..LOOKS_TO_GET_READY {
            if is_ready(&server) {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended ({status}):\n{}", server.said());
            }
            thread::sleep(LOOK_EVERY);
        }
        bail!("{name} does not get ready:\n{}", server.said())
    }

    /// What it wrote.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The processor time that all its processes have used up to now, for themselves and within the kernel.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell, or the server is gone.
    pub fn processor_time(&self) -> Result<Duration> {
        let mut processes = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // One that ended meanwhile is not there any more.
            let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else {
                continue;
            };
            processes.push((id, Stat::parse(&stat).context("/proc/PID/stat")?));
        }
        let mut family = vec![self.child.id()];
        let mut at = 0;
        let mut ticks = 0;
        while let Some(&member) = family.get(at) {
            at += 1;
            for (id, stat) in &processes {
                if *id == member {
                    ticks += stat.ticks;
                }
                if stat.parent == member {
                    family.push(*id);
                }
            }
        }
        ensure!(ticks > 0, "{} is gone:\n{}", self.name, self.said());
        Ok(TICK * u32::try_from(ticks).context("less than a year")?)
    }

    fn end(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        // The program, not the system call: see `cores`.
        Command::new("kill")
            .arg(format!("-{}", self.farewell))
            .arg(self.child.id().to_string())
            .status()?;
        for _ in 0..LOOKS_TO_END {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(LOOK_EVERY);
        }
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // There is nobody left to tell, and the kernel ends it with us at the latest.
        let _ = self.end();
    }
}

/// What the kernel tells of one process.
struct Stat {
    parent: u32,
    /// In user mode and in the kernel.
    ticks: u64,
}

// === impl Stat ===

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The name, in brackets, may hold anything; what follows the last bracket is numbers.
        let (_, rest) = line.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            ticks: ticks(11)? + ticks(12)?,
        })
    }
}

/// A command that runs on the servers' core, and is ended by the kernel when the thread that starts it ends: nothing is
/// left behind by a suite that is killed.
fn command(program: &Path, user: Option<Unprivileged>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &cores::SERVERS.to_string()]);
    command.args(["setpriv", "--pdeathsig", "TERM"]);
    if let Some(Unprivileged { user, group }) = user {
        command.arg(format!("--reuid={user}"));
        command.arg(format!("--regid={group}"));
        command.arg("--clear-groups");
    }
    command.arg(program);
    command
}

/// Finds a program; `install` is the package that has it.
fn program(name: &str, install: &str, further: &[PathBuf]) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path)
        .chain(further.iter().cloned())
        .chain(FURTHER_FOLDERS.iter().map(PathBuf::from));
    let found = folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("{name} is missing: apt-get install {install}"))
}

/// What a program says of its version, on either stream.
fn version(program: &Path, argument: &str) -> Result<String> {
    let said = Command::new(program).arg(argument).output()?;
    let text = if said.stdout.is_empty() {
        said.stderr
    } else {
        said.stdout
    };
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn folder() -> Result<TempDir> {
    // A Unix socket's path has room for a hundred bytes: a short name in the folder for such things.
    tempfile::Builder::new()
        .prefix("kf")
        .tempdir()
        .context("a folder")
}

/// Runs a command to its end.
fn run(mut command: Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

// === impl Unprivileged ===

impl Unprivileged {
    /// Nobody, when the suite is run by somebody who may do everything.
    fn if_needed() -> Result<Option<Self>> {
        use std::os::unix::fs::MetadataExt;
        if fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").context("the users of this machine")?;
        let nobody = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == "nobody").then_some(())?;
            let user = fields.nth(1)?.parse().ok()?;
            let group = fields.next()?.parse().ok()?;
            Some(Self { user, group })
        });
        Ok(Some(nobody.context("this machine has no user `nobody`")?))
    }

    /// Gives it a folder.
    fn own(self, folder: &Path) -> Result<()> {
        std::os::unix::fs::chown(folder, Some(self.user), Some(self.group))
            .with_context(|| format!("giving {} away", folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Server {
        let folder = folder().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        let address = Address::Unix(folder.path().join("s"));
        let sh = program("sh", "dash", &[]).unwrap();
        let mut command = command(&sh, None);
        // A child of a child, which works: it must be counted, and it must be gone afterwards.
        command.args(["-c", "sh -c 'while :; do :; done' & echo $!; wait"]);
        let server =
            Server::start("sleeper", "TERM", folder, command, |_| address.answers()).unwrap();
        drop(listener);
        server
    }

    #[test]
    fn the_time_of_all_its_processes_is_counted() {
        let server = sleeper();
        let enough = (0..LOOKS_TO_GET_READY).any(|_| {
            thread::sleep(LOOK_EVERY);
            server
                .processor_time()
                .is_ok_and(|used| used > Duration::from_millis(100))
        });
        let worker = server.said().trim().to_owned();
        let killed = Command::new("kill").arg(worker).status();
        assert!(enough && killed.unwrap().success());
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "7 (a) b) (c) S 5 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 1 0 9 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.ticks), (5, 42));
    }

    #[test]
    fn a_server_that_dies_is_reported_with_its_words() {
        let folder = folder().unwrap();
        let address = Address::Unix(folder.path().join("never"));
        let sh = program("sh", "dash", &[]).unwrap();
        let mut command = command(&sh, None);
        command.args(["-c", "echo no room >&2; exit 3"]);
        let error =
            Server::start("shell", "TERM", folder, command, |_| address.answers()).unwrap_err();
        assert!(error.to_string().contains("no room"), "{error}");
    }

    #[test]
    fn a_missing_program_says_how_to_install_it() {
        let error = program("no-such-program", "its-package", &[]).unwrap_err();
        assert!(
            error.to_string().contains("apt-get install its-package"),
            "{error}"
        );
    }

    #[test]
    fn a_dropped_server_is_gone() {
        let folder = folder().unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        let address = Address::Unix(folder.path().join("s"));
        let sleep = program("sleep", "coreutils", &[]).unwrap();
        let mut command = command(&sleep, None);
        command.arg("600");
        let server =
            Server::start("sleep", "TERM", folder, command, |_| address.answers()).unwrap();
        let (id, path) = (server.child.id(), server.folder().to_owned());
        assert!(Path::new(&format!("/proc/{id}")).exists());
        drop(server);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
        assert!(!path.exists());
    }
}

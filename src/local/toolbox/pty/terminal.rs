//! One terminal: a login shell on a pseudo-terminal, and whoever looks at it.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::io::Interest;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use super::device::{self, Size};
use crate::api::toolbox::PtySessionInfo;
use crate::local::toolbox::processes::{self, Root};
use crate::local::toolbox::reaper::{Child, Exit};
use crate::local::toolbox::settled::settled;
use crate::local::toolbox::spawn::{Program, start_failure};
use crate::local::toolbox::state::Toolbox;
use crate::local::toolbox::{shell, time};

/// How many pieces of output may wait for a client before it is dropped as too slow.
const QUEUE: usize = 256;
/// How long a terminal must be silent after its shell's end to be done.
const SILENCE: Duration = Duration::from_millis(50);
/// How long it may go on if it is not silent.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The largest piece.
const CHUNK: usize = 32 * 1024;

/// A terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) id: String,
    cwd: String,
    envs: BTreeMap<String, String>,
    lazy: bool,
    created_at: String,
    size: Mutex<Size>,
    running: Mutex<Option<Running>>,
    output: broadcast::Sender<Bytes>,
    exit: watch::Sender<Option<Exit>>,
    /// Input of several clients is not mixed within a message.
    typing: tokio::sync::Mutex<()>,
}

/// A started shell.
#[derive(Clone, Debug)]
struct Running {
    device: Arc<device::Terminal>,
    root: Root,
}

impl Terminal {
    pub(super) fn new(
        id: String,
        cwd: String,
        envs: BTreeMap<String, String>,
        size: Size,
        lazy: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            cwd,
            envs,
            lazy,
            created_at: time::now(),
            size: Mutex::new(size),
            running: Mutex::default(),
            output: broadcast::Sender::new(QUEUE),
            exit: watch::Sender::new(None),
            typing: tokio::sync::Mutex::default(),
        })
    }

    /// Starts the shell unless it was started before.
    pub(super) fn start(self: &Arc<Self>, toolbox: &Arc<Toolbox>) -> io::Result<()> {
        let mut running = lock(&self.running);
        if running.is_some() || self.exit.borrow().is_some() {
            return Ok(());
        }
        let (ours, theirs) = device::open(*lock(&self.size))?;
        let mut env = toolbox.env();
        env.push(("TERM".to_owned(), "xterm-256color".to_owned()));
        env.extend(self.envs.clone());
        let name = shell::name(&env);
        let arguments = ["-i", "-l"].map(str::to_owned);
        let program = Program { name: &name, arguments: &arguments, cwd: Some(&self.cwd), env };
        let mut command = program.command(toolbox).map_err(io::Error::other)?;
        command
            .stdin(Stdio::from(theirs.try_clone()?))
            .stdout(Stdio::from(theirs.try_clone()?))
            .stderr(Stdio::from(theirs));
        device::control(&mut command);
        let child = toolbox
            .reaper
            .spawn(&mut command)
            .map_err(|error| io::Error::other(start_failure(&command, &error)))?;
        let device = Arc::new(ours);
        *running = Some(Running { device: Arc::clone(&device), root: Root::new(child.pid()) });
        let (terminal, toolbox) = (Arc::clone(self), Arc::clone(toolbox));
        tokio::spawn(async move {
            let exit = terminal.show(&device, child).await;
            *lock(&terminal.running) = None;
            toolbox.terminals.remove(&terminal.id);
            terminal.exit.send_replace(exit);
        });
        Ok(())
    }

    /// Sends what the terminal shows to everyone who looks, until the shell has ended.
    async fn show(&self, device: &device::Terminal, mut child: Child) -> Option<Exit> {
        loop {
            tokio::select! {
                piece = read(device) => if !self.send(piece).await {
                    return child.wait().await;
                },
                exit = child.wait() => {
                    // the kernel passes on in the background what the shell said last; a process that it left behind
                    // does not keep the terminal open
                    let last_words = async {
                        while let Ok(piece) = timeout(SILENCE, read(device)).await {
                            if !self.send(piece).await {
                                break;
                            }
                        }
                    };
                    let _ = timeout(LAST_WORDS, last_words).await;
                    return exit;
                }
            }
        }
    }

    /// Sends a piece; false if no process has the terminal any more.
    async fn send(&self, piece: io::Result<Vec<u8>>) -> bool {
        let Some(piece) = piece.ok().filter(|piece| !piece.is_empty()) else { return false };
        // nobody may look
        let _ = self.output.send(piece.into());
        // those who look get their turn
        tokio::task::yield_now().await;
        true
    }

    /// Types into the terminal. Ends with the shell, however much is still to be read.
    pub(super) async fn type_in(&self, mut input: &[u8]) -> io::Result<()> {
        let Some(Running { device, .. }) = lock(&self.running).clone() else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let _turn = self.typing.lock().await;
        let mut ended = self.exit.subscribe();
        while !input.is_empty() {
            let written = tokio::select! {
                written = device.async_io(Interest::WRITABLE, |mut file| file.write(input)) => written?,
                _ = settled(&mut ended) => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            input = input.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Changes the size, now or for the start.
    pub(super) fn resize(&self, size: Size) -> io::Result<()> {
        *lock(&self.size) = size;
        match lock(&self.running).as_ref() {
            Some(running) => device::resize(&running.device, size),
            None => Ok(()),
        }
    }

    /// Kills the shell and what came from it.
    pub(super) fn kill(&self) {
        let running = lock(&self.running).clone();
        if let Some(Running { root, .. }) = running {
            processes::kill_family(root);
        }
    }

    /// What it shows from now on.
    pub(super) fn output(&self) -> broadcast::Receiver<Bytes> {
        self.output.subscribe()
    }

    /// Tells when its shell has ended.
    pub(super) fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.subscribe()
    }

    /// As the wire has it.
    pub(super) fn info(&self) -> PtySessionInfo {
        let Size { cols, rows } = *lock(&self.size);
        PtySessionInfo {
            id: self.id.clone(),
            cwd: self.cwd.clone(),
            envs: self.envs.clone(),
            cols,
            rows,
            created_at: self.created_at.clone(),
            active: lock(&self.running).is_some(),
            lazy_start: self.lazy,
        }
    }
}

async fn read(device: &device::Terminal) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; CHUNK];
    let read = device.async_io(Interest::READABLE, |mut file| file.read(&mut piece)).await?;
    piece.truncate(read);
    piece.shrink_to_fit();
    Ok(piece)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

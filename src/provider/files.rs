//! Reads and writes files of a sandbox, in one request each.

use std::time::Duration;

use bytes::Bytes;

use super::exec::Command;
use super::sandbox::{ROOT, Sandbox};
use crate::client::file_error;
use crate::error::{Error, ErrorKind, Result};

/// What one part of a file that only root may read comes in: what an answer carries, so that no part becomes a file.
const ROOT_CHUNK: u64 = 1024 * 1024;
/// How the shim begins what it says of a file, before it exits with the errno.
const SHIM_SAYS: &str = "inspect-daytona-shim: ";
/// How long one step of a file operation inside the sandbox may take.
const STEP: Duration = Duration::from_secs(60);

impl Sandbox {
    /// Writes `contents` to `path`, making parent directories. A relative path starts at the working directory of
    /// commands. An existing file keeps its owner and mode. Not atomic.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`], [`ErrorKind::IsADirectory`] and [`ErrorKind::FileSystem`] whose message is
    /// `path`; [`ErrorKind::FileNotFound`] only for a link to where nothing can be made.
    pub async fn write_file(&self, path: &str, contents: Bytes) -> Result<()> {
        validate(path)?;
        let resolved = self.resolve(path);
        self.write_resolved(&resolved, contents).await.map_err(|error| as_given(error, &resolved, path))
    }

    async fn write_resolved(&self, path: &str, contents: Bytes) -> Result<()> {
        if self.container().is_some() || self.default_user().is_some() || path.trim() != path {
            // The toolbox writes on the machine, as its own user, and trims the destination.
            return self.write_as_user(path, contents).await;
        }
        match self.toolbox().upload(path, contents).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.write_error(error, path).await),
        }
    }

    /// Reads at most `limit` bytes of `path`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::FileNotFound`], [`ErrorKind::PermissionDenied`] and [`ErrorKind::IsADirectory`] whose message is
    /// `path`; [`ErrorKind::OutputLimit`] if the file is larger.
    pub async fn read_file(&self, path: &str, limit: u64) -> Result<Bytes> {
        validate(path)?;
        let resolved = self.resolve(path);
        self.read_resolved(&resolved, limit).await.map_err(|error| as_given(error, &resolved, path))
    }

    async fn read_resolved(&self, path: &str, limit: u64) -> Result<Bytes> {
        if self.container().is_some() {
            return self.read_in_container(path, limit).await;
        }
        let (downloaded, locked) = if self.toolbox_is_root() {
            // side by side, so that the check costs no time
            tokio::join!(self.toolbox().download(path, limit), self.is_locked(path))
        } else {
            (self.toolbox().download(path, limit).await, false)
        };
        if locked {
            return Err(Error::new(ErrorKind::PermissionDenied, path));
        }
        match downloaded {
            // the kernel's files say they are empty, and a download believes them
            Ok(bytes) if bytes.is_empty() && is_kernel_file(path) => {
                self.read_through_shim(path, limit, None).await
            }
            Ok(bytes) => Ok(bytes),
            // As docker does, a file is read for the eval, not for the agent: checkpoints and tools keep root's
            // files. The owner's own permission to read still counts.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                match self.read_through_shim(path, limit, Some(ROOT)).await {
                    Err(unsupported) if unsupported.kind() == ErrorKind::UserUnsupported => {
                        Err(Error::new(ErrorKind::PermissionDenied, path))
                    }
                    result => result,
                }
            }
            Err(error) => Err(self.read_error(error, path).await),
        }
    }

    /// As docker does, for the eval and not for the agent: what the container's user may not read, root may.
    async fn read_in_container(&self, path: &str, limit: u64) -> Result<Bytes> {
        const EACCES: i32 = 13;
        let mut outcome = self.read_by_call(path, limit, None).await?;
        if outcome.returncode == EACCES {
            let as_root = self.read_by_call(path, limit, Some(ROOT)).await;
            // no root to be had leaves it at that
            outcome = as_root.ok().filter(|outcome| outcome.returncode != 126).unwrap_or(outcome);
        }
        let said = outcome.stderr.text(ROOT_CHUNK);
        match outcome.returncode {
            0 => Ok(outcome.stdout.tail.into()),
            // no path that leads through a file exists
            20 => Err(Error::new(ErrorKind::FileNotFound, path)),
            27 => Err(Error::new(ErrorKind::OutputLimit, format!("{path} is larger than {limit} bytes"))),
            errno => {
                Err(file_error(errno, path)
                    .unwrap_or_else(|| self.unexpected("read a file", path, errno, &said)))
            }
        }
    }

    /// Whether the owner's permission to read a file was taken away, which root does not feel.
    async fn is_locked(&self, path: &str) -> bool {
        let Ok(info) = self.toolbox().info(path).await else { return false };
        !info.is_dir && u32::from_str_radix(&info.permissions, 8).is_ok_and(|mode| mode & 0o400 == 0)
    }

    /// Reads the kept output of a command of `user`, `length` bytes, from where the shim left it.
    pub(super) async fn read_result(&self, path: &str, length: u64, user: Option<&str>) -> Result<Bytes> {
        let bytes = match self.toolbox().download(path, length).await {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && self.container().is_none() => {
                Box::pin(self.read_through_shim(path, length, user)).await?
            }
            Err(error) => return Err(self.own_file(error.with_operation("fetch a command's output")).await),
            Ok(bytes) => bytes,
        };
        if bytes.len() as u64 == length {
            return Ok(bytes);
        }
        Err(self.unavailable(format!("{} of {length} bytes of a command's output are left", bytes.len())))
    }

    /// Reads a file by a command, in chunks that fit an answer.
    async fn read_through_shim(&self, path: &str, limit: u64, user: Option<&str>) -> Result<Bytes> {
        let mut contents = Vec::new();
        loop {
            let offset = contents.len() as u64;
            let argv = vec![
                self.shim().path(),
                "read".to_owned(),
                path.to_owned(),
                offset.to_string(),
                ROOT_CHUNK.to_string(),
            ];
            let (bytes, stderr, status) = self.shim_command(argv, None, user).await?;
            match status {
                0 => {}
                2 => return Err(Error::new(ErrorKind::FileNotFound, path)),
                13 => return Err(Error::new(ErrorKind::PermissionDenied, path)),
                21 => return Err(Error::new(ErrorKind::IsADirectory, path)),
                _ => return Err(self.unexpected("read a file", path, status, &stderr)),
            }
            let last = (bytes.len() as u64) < ROOT_CHUNK;
            contents.extend_from_slice(&bytes);
            if contents.len() as u64 > limit {
                return Err(Error::new(
                    ErrorKind::OutputLimit,
                    format!("{path} is larger than {limit} bytes"),
                ));
            }
            if last {
                return Ok(contents.into());
            }
        }
    }

    /// Writes a file by a command, as the user that commands run as.
    async fn write_as_user(&self, path: &str, contents: Bytes) -> Result<()> {
        let argv = vec![self.program(), "write".to_owned(), path.to_owned()];
        let (_, stderr, status) = self.shim_command(argv, Some(contents), None).await?;
        match status {
            0 => Ok(()),
            // whatever else ends with such a status does not say so
            errno if stderr.starts_with(SHIM_SAYS) => Err(file_error(errno, path)
                .unwrap_or_else(|| self.unexpected("write a file", path, status, &stderr))),
            _ => Err(self.unexpected("write a file", path, status, &stderr)),
        }
    }

    /// A tool of the shim; returns its standard output, standard error and exit status.
    async fn shim_command(
        &self,
        argv: Vec<String>,
        input: Option<Bytes>,
        user: Option<&str>,
    ) -> Result<(Bytes, String, i32)> {
        let command = Command {
            argv,
            input,
            user: user.map(str::to_owned),
            timeout: Some(STEP),
            output_limit: ROOT_CHUNK,
            ..Command::default()
        };
        let outcome = match self.exec_bytes(command).await {
            // the shim's own file, not the one that it was to read or write
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(self.own_file(error).await);
            }
            outcome => outcome?,
        };
        if outcome.timed_out {
            return Err(Error::new(ErrorKind::FileTimeout, "a file operation took longer than 60 s")
                .with_sandbox(self.label()));
        }
        Ok((outcome.stdout.tail.into(), outcome.stderr.text(ROOT_CHUNK), outcome.returncode))
    }

    fn unexpected(&self, operation: &'static str, path: &str, status: i32, stderr: &str) -> Error {
        Error::new(ErrorKind::System, format!("{path}: {} (status {status})", stderr.trim()))
            .with_operation(operation)
            .with_sandbox(self.label())
    }

    /// The error of a download with the caller's path; asks the toolbox where its answer leaves it open.
    async fn read_error(&self, error: Error, path: &str) -> Error {
        // An empty 400 is a directory, a file where a directory should be, or no path at all.
        if error.kind() != ErrorKind::InvalidRequest {
            return self.file_error(error, path, "read a file").await;
        }
        match self.toolbox().info(path).await {
            Ok(info) if info.is_dir => Error::new(ErrorKind::IsADirectory, path).with_source(error),
            Err(probe) if matches!(probe.kind(), ErrorKind::FileNotFound | ErrorKind::InvalidRequest) => {
                Error::new(ErrorKind::FileNotFound, path).with_source(error)
            }
            _ => error.with_operation("read a file").with_sandbox(self.label()),
        }
    }

    /// The error of an upload with the caller's path. A file that could not be written is never called missing, unless
    /// the operating system does.
    async fn write_error(&self, error: Error, path: &str) -> Error {
        if error.kind() == ErrorKind::InvalidRequest {
            return error.with_operation("write a file").with_sandbox(self.label());
        }
        self.file_error(error, path, "write a file").await
    }

    async fn file_error(&self, error: Error, path: &str, operation: &'static str) -> Error {
        match error.kind() {
            ErrorKind::FileNotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::IsADirectory
            | ErrorKind::FileSystem => error.reworded(path),
            ErrorKind::OutputLimit => error,
            // of the transport, so it must not look like the file's
            ErrorKind::DeadlineExceeded => error.with_operation(operation).with_sandbox(self.label()),
            _ => self.explain(error.with_operation(operation)).await,
        }
    }
}

/// The error about a path as its caller wrote it.
fn as_given(error: Error, resolved: &str, path: &str) -> Error {
    if resolved != path && error.message() == resolved {
        return error.reworded(path);
    }
    error
}

/// Refuses what cannot be a path.
fn validate(path: &str) -> Result<()> {
    if path.contains('\0') {
        return Err(Error::new(ErrorKind::InvalidArgument, "embedded null byte"));
    }
    if path.is_empty() {
        return Err(Error::new(ErrorKind::FileNotFound, path));
    }
    Ok(())
}

/// Whether a path lies in a file system whose files have no size.
fn is_kernel_file(path: &str) -> bool {
    ["/proc/", "/sys/"].iter().any(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_byte_in_a_path_is_refused_before_any_request() {
        assert_eq!(validate("a\0b").unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(validate("").unwrap_err().kind(), ErrorKind::FileNotFound);
        assert!(validate("a b").is_ok());
    }
}

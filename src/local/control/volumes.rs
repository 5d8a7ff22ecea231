//! Volumes: directories beside those of the sandboxes, which live as long as the server.

use std::path::{Path, PathBuf};

use super::error::{ApiError, ApiResult};
use super::state::{Control, Store, uuid};
use super::timestamp;
use crate::api::sandbox::DesiredState;
use crate::api::volume::{Volume, VolumeMount};
use crate::local::spec::Mount;

/// The state of a volume that can be used.
pub(super) const READY: &str = "ready";
const DELETING: &str = "deleting";
/// The state of a volume that is gone.
pub(super) const DELETED: &str = "deleted";
/// Where nothing may be mounted.
const OF_THE_SYSTEM: [&str; 9] =
    ["/proc", "/sys", "/dev", "/boot", "/etc", "/bin", "/sbin", "/lib", "/lib64"];

impl Control {
    /// Makes a volume, ready at once.
    pub(super) fn create_volume(&self, name: String) -> ApiResult<Volume> {
        let now = timestamp::format(self.now());
        let id = uuid();
        let name = if name.is_empty() { id.clone() } else { name };
        let mut store = self.store();
        if store.volumes.values().any(|volume| volume.name == name) {
            return Err(ApiError::bad_request(format!("Volume with name {name} already exists")));
        }
        let volume = Volume {
            id: id.clone(),
            name,
            organization_id: self.organization.clone(),
            state: READY.to_owned(),
            created_at: now.clone(),
            updated_at: now,
            last_used_at: None,
            error_reason: None,
        };
        store.volumes.insert(id, volume.clone());
        Ok(volume)
    }

    /// Deletes a volume that no sandbox mounts; its files are gone a little later.
    pub(super) fn delete_volume(&self, id: &str) -> ApiResult<()> {
        let now = timestamp::format(self.now());
        let mut store = self.store();
        let Some(volume) = store.volumes.get(id) else {
            return Err(ApiError::not_found(format!("Volume with ID {id} not found")));
        };
        if ![READY, "error"].contains(&volume.state.as_str()) {
            let message = format!("Volume must be in 'ready' or 'error' state, it is {}", volume.state);
            return Err(ApiError::bad_request(message));
        }
        let user = store.sandboxes.values().find(|record| {
            let mounted = record.sandbox.volumes.iter().any(|mount| mount.volume_id == id);
            mounted && record.desired != DesiredState::Destroyed
        });
        if let Some(user) = user {
            let message = format!(
                "Volume cannot be deleted because it is in use by one or more sandboxes (e.g. {})",
                user.sandbox.name
            );
            return Err(ApiError::conflict(message));
        }
        if let Some(volume) = store.volumes.get_mut(id) {
            DELETING.clone_into(&mut volume.state);
            volume.updated_at = now;
        }
        drop(store);
        let (control, id) = (self.clone(), id.to_owned());
        self.spawn(async move { control.remove_volume(&id).await });
        Ok(())
    }

    async fn remove_volume(&self, id: &str) {
        let removed = self.engine.remove(self.volume_directory(id)).await;
        let now = timestamp::format(self.now());
        let mut store = self.store();
        let Some(volume) = store.volumes.get_mut(id) else { return };
        volume.updated_at = now;
        match removed {
            Ok(()) => {
                DELETED.clone_into(&mut volume.state);
                volume.name = format!("{}-deleted", volume.name);
            }
            Err(error) => {
                "error".clone_into(&mut volume.state);
                volume.error_reason = Some(error.to_string());
            }
        }
    }

    fn volume_directory(&self, id: &str) -> PathBuf {
        // beside the sandboxes, whose ids are not like this, so that the engine removes both
        self.directory.join(".volumes").join(id)
    }

    /// What a sandbox mounts.
    pub(super) fn mounts(&self, volumes: &[VolumeMount]) -> Vec<Mount> {
        let mount = |mount: &VolumeMount| Mount {
            source: self.volume_directory(&mount.volume_id),
            subpath: mount.subpath.as_ref().filter(|subpath| !subpath.is_empty()).map(PathBuf::from),
            target: PathBuf::from(&mount.mount_path),
        };
        volumes.iter().map(mount).collect()
    }
}

impl Store {
    /// The volumes of a request, by id; notes that they are used.
    pub(super) fn take_volumes(
        &mut self,
        wanted: &[VolumeMount],
        now: std::time::SystemTime,
    ) -> ApiResult<Vec<VolumeMount>> {
        let mut taken: Vec<VolumeMount> = Vec::new();
        for mount in wanted {
            check(mount)?;
            if taken.iter().any(|other| other.mount_path == mount.mount_path) {
                return Err(ApiError::bad_request(format!("Two volumes for {}", mount.mount_path)));
            }
            let key = &mount.volume_id;
            let named =
                |volume: &&Volume| volume.id == *key || (volume.name == *key && volume.state != DELETED);
            let Some(volume) = self.volumes.values().find(named) else {
                return Err(ApiError::not_found(format!("Volume '{key}' not found")));
            };
            if volume.state != READY {
                return Err(ApiError::bad_request(format!(
                    "Volume '{key}' is not in a ready state. Current state: {}",
                    volume.state
                )));
            }
            taken.push(VolumeMount { volume_id: volume.id.clone(), ..mount.clone() });
        }
        for mount in &taken {
            if let Some(volume) = self.volumes.get_mut(&mount.volume_id) {
                volume.last_used_at = Some(timestamp::format(now));
            }
        }
        Ok(taken)
    }
}

/// A mount path is absolute and not the system's; a subpath stays within its volume.
fn check(mount: &VolumeMount) -> ApiResult<()> {
    let refuse = |what: &str, text: &str, why: &str| {
        Err(ApiError::bad_request(format!("Invalid {what} {text:?} for volume: {why}")))
    };
    let dots = |path: &str| path.split('/').any(|part| part == "." || part == "..");
    let path = mount.mount_path.as_str();
    let plain = path.trim_end_matches('/');
    if !path.starts_with('/') || plain.is_empty() {
        return refuse("mount path", path, "it must be an absolute path other than /");
    }
    if dots(path) || path.contains("//") || path.contains('\0') {
        return refuse("mount path", path, "it must not contain `.`, `..` or empty parts");
    }
    if OF_THE_SYSTEM.iter().any(|system| Path::new(plain).starts_with(system)) {
        return refuse("mount path", path, "it must not be a system directory");
    }
    let subpath = mount.subpath.as_deref().unwrap_or_default();
    if subpath.starts_with('/') || dots(subpath) || subpath.contains("//") || subpath.contains('\0') {
        return refuse("subpath", subpath, "it must be relative, without `.`, `..` or empty parts");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_paths_are_absolute_and_not_the_systems_and_subpaths_stay_inside() {
        let mount = |path: &str, subpath: Option<&str>| VolumeMount {
            volume_id: "v".into(),
            mount_path: path.into(),
            subpath: subpath.map(str::to_owned),
        };
        for good in ["/data", "/home/daytona/data/", "/libraries", "/usr/share/x", "/etcetera"] {
            check(&mount(good, Some("a/b"))).unwrap();
        }
        for bad in ["", "data", "/", "//", "/a//b", "/a/../b", "/a/.", "/proc", "/etc/x", "/lib64", "/a\0b"] {
            assert!(check(&mount(bad, None)).is_err(), "{bad:?}");
        }
        for bad in ["/a", "..", "a/../b", "a//b", "./a"] {
            assert!(check(&mount("/data", Some(bad))).is_err(), "{bad:?}");
        }
    }
}

//! Keys of volumes and of what a service mounts.

use super::Decision::{Honoured, Ignored, Refused, Satisfied};
use super::{Key, key};

/// Keys of a volume at the top of the file.
pub const VOLUME: &[Key] = &[
    key("driver", Honoured, Honoured, "a single service's can only be `local`"),
    key("driver_opts", Honoured, Honoured, "refused in a single service: the volume would be elsewhere"),
    key("external", Honoured, Honoured, "refused: a sandbox is a new machine; see `x-daytona.volumes`"),
    key("labels", Ignored, Honoured, "metadata of a volume that nobody else sees"),
    key("name", Satisfied, Honoured, "no other container looks for it"),
];

/// Keys of the long form of a service's volume.
pub const MOUNT: &[Key] = &[
    key("bind", Honoured, Honoured, "bind mounts of a single service are refused"),
    key("consistency", Satisfied, Satisfied, "for macOS"),
    key("image", Honoured, Honoured, "mounts of images are refused in a single service"),
    key("read_only", Refused, Honoured, "a sandbox's disk is writable, so the isolation would be weaker"),
    key("source", Honoured, Honoured, "the name of a volume of the file; without one the volume has no name"),
    key("target", Honoured, Honoured, "the absolute path inside"),
    key("tmpfs", Honoured, Honoured, ""),
    key("type", Honoured, Honoured, "`volume` or `tmpfs` in a single service"),
    key("volume", Honoured, Honoured, ""),
];

/// Keys of `bind` in it.
pub const BIND: &[Key] = &[
    key("create_host_path", Refused, Honoured, "a single service has no bind mounts"),
    key("propagation", Refused, Honoured, "a single service has no bind mounts"),
    key("recursive", Refused, Honoured, "a single service has no bind mounts"),
    key("selinux", Refused, Honoured, "a single service has no bind mounts"),
];

/// Keys of `image` in it.
pub const IMAGE: &[Key] = &[key("subpath", Refused, Honoured, "a single service has no mounts of images")];

/// Keys of `tmpfs` in it.
pub const IN_MEMORY: &[Key] = &[
    key("mode", Honoured, Honoured, "permissions, in octal"),
    key("size", Honoured, Honoured, "a size such as `64m`"),
];

/// Keys of `volume` in it.
pub const NAMED: &[Key] = &[
    key("labels", Ignored, Honoured, "metadata of a volume that nobody else sees"),
    key("nocopy", Refused, Honoured, "what the image has at the path stays there"),
    key("subpath", Refused, Honoured, "the volume of a single service is one directory"),
];

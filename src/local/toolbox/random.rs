//! Ids.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// A fresh UUID of version 4. Unique, but no secret: its randomness is that of the standard library's hash tables.
pub(super) fn id() -> String {
    let [high, low] = [(); 2].map(|()| RandomState::new().build_hasher().finish());
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | 1 << 63;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::id;

    #[test]
    fn ids_differ_and_are_uuids_of_version_4() {
        let ids: BTreeSet<_> = (0..1000).map(|_| id()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let groups: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
            assert!(id[14..].starts_with('4') && "89ab".contains(&id[19..20]), "{id}");
        }
    }
}

//! Reads the configuration file, and nothing else that a path can name.
//!
//! A pipe or a device may give no byte or no end. A reload that waits for it would keep the signals' thread from
//! ending the server.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// How long the file may be, in bytes: 300 times the example file.
const MAX_FILE: u64 = 1 << 20;

/// The content of a regular file, also through symbolic links.
///
/// # Errors
/// If it cannot be read, is no regular file, or is longer than [`MAX_FILE`].
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // To open a device can have an effect.
    check(&fs::metadata(path)?)?;
    let file = open(path)?;
    // Another file may have taken its place.
    check(&file.metadata()?)?;
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(content)
}

/// Opens it without waiting for anybody at the other end of a pipe (fifo(7)).
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)
}

fn check(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(io::Error::other("it is not a regular file")) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn refusal(path: &Path) -> String {
        read(path).expect_err("it is refused").to_string()
    }

    #[test]
    fn only_regular_files_of_a_mebibyte_are_read() {
        let folder = std::env::temp_dir().join(format!("noray-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let [regular, link, pipe] = ["regular", "link", "pipe"].map(|name| folder.join(name));
        std::os::unix::fs::symlink(&regular, &link).unwrap();
        for length in [0, MAX_FILE] {
            fs::write(&regular, vec![b'#'; usize::try_from(length).unwrap()]).unwrap();
            assert_eq!(read(&link).unwrap().len() as u64, length);
        }
        fs::write(&regular, vec![b'#'; usize::try_from(MAX_FILE).unwrap() + 1]).unwrap();
        assert_eq!(refusal(&regular), "it is longer than 1 MiB");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _opens_at_once = open(&pipe).unwrap();
        for path in [&pipe, &folder, Path::new("/dev/zero"), Path::new("/dev/null")] {
            assert_eq!(refusal(path), "it is not a regular file", "{}", path.display());
        }
        fs::remove_dir_all(folder).unwrap();
    }
}

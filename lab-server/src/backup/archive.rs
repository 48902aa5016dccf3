//! A stream of files, encrypted while it is written and decrypted while it is read: no file of it ever lies open anywhere.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use age::{
    Decryptor, Encryptor,
    x25519::{Identity, Recipient},
};

use super::{BackupError, failed};

/// Writes files and folders, each under its name, encrypted to `recipients`, into a new file. It appears there whole or not at all.
/// Gives its size.
pub(super) fn pack(parts: &[(&Path, &str)], recipients: &[Recipient], path: &Path) -> Result<u64, BackupError> {
    let part = Part(path.with_extension("part"));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&part.0).map_err(|error| failed(path, &error))?;
    let encryptor = Encryptor::with_recipients(recipients.iter().map(|recipient| recipient as &dyn age::Recipient));
    let encryptor = encryptor.map_err(|_| BackupError::Recipients)?;
    let write = || -> io::Result<u64> {
        let mut archive = tar::Builder::new(encryptor.wrap_output(BufWriter::new(file))?);
        archive.follow_symlinks(false);
        for (source, name) in parts {
            if source.is_dir() {
                add_folder(&mut archive, source, Path::new(name))?;
            } else if source.is_file() {
                archive.append_file(name, &mut File::open(source)?)?;
            }
        }
        let file = archive.into_inner()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&part.0, path)?;
        Ok(file.metadata()?.len())
    };
    write().map_err(|error| failed(path, &error))
}

/// A folder whose files come and go meanwhile: what is gone when its turn comes was deleted.
fn add_folder(archive: &mut tar::Builder<impl Write>, folder: &Path, name: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name, kind) = (entry.path(), name.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            add_folder(archive, &path, &name)?;
        } else if kind.is_file() {
            match File::open(&path) {
                Ok(mut file) => archive.append_file(&name, &mut file)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Reads a copy to its end and gives the number of its files.
pub(super) fn files(path: &Path, identities: &[Identity]) -> Result<usize, BackupError> {
    let mut archive = open(path, identities)?;
    let closed = |_| BackupError::Closed(path.to_owned());
    let mut files = 0;
    for entry in archive.entries().map_err(closed)? {
        io::copy(&mut entry.map_err(closed)?, &mut io::sink()).map_err(closed)?;
        files += 1;
    }
    to_its_end(archive).map_err(closed)?;
    Ok(files)
}

/// Puts a copy's files into a folder, readable by their owner alone.
pub(super) fn unpack(path: &Path, identities: &[Identity], folder: &Path) -> Result<(), BackupError> {
    let mut archive = open(path, identities)?;
    let closed = |_| BackupError::Closed(path.to_owned());
    for entry in archive.entries().map_err(closed)? {
        let mut entry = entry.map_err(closed)?;
        // Only plain files are ever written; anything else is not ours. Paths that lead out of the folder are refused.
        if !entry.header().entry_type().is_file() {
            return Err(BackupError::Closed(path.to_owned()));
        }
        entry.set_preserve_mtime(false);
        let name = entry.path().map_err(closed)?.into_owned();
        if !entry.unpack_in(folder).map_err(|error| failed(&folder.join(&name), &error))? {
            return Err(BackupError::Closed(path.to_owned()));
        }
        private(folder, &name).map_err(|error| failed(&folder.join(&name), &error))?;
    }
    to_its_end(archive).map_err(closed)
}

/// The file for its owner alone, and the folders that lead to it.
#[cfg(unix)]
fn private(folder: &Path, name: &Path) -> io::Result<()> {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    std::fs::set_permissions(folder.join(name), Permissions::from_mode(0o600))?;
    for above in name.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        std::fs::set_permissions(folder.join(above), Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn private(_: &Path, _: &Path) -> io::Result<()> {
    Ok(())
}

/// Behind the last file too everything is authenticated: a copy that was cut there is not whole.
fn to_its_end(archive: tar::Archive<impl Read>) -> io::Result<()> {
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
}

fn open(path: &Path, identities: &[Identity]) -> Result<tar::Archive<impl Read>, BackupError> {
    let file = File::open(path).map_err(|error| failed(path, &error))?;
    let closed = |_| BackupError::Closed(path.to_owned());
    let decryptor = Decryptor::new_buffered(BufReader::new(file)).map_err(closed)?;
    let reader = decryptor.decrypt(identities.iter().map(|identity| identity as &dyn age::Identity)).map_err(closed)?;
    Ok(tar::Archive::new(reader))
}

/// A file that is being written. What does not come to its end is removed.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // One that was finished has another name by now.
        let _ = std::fs::remove_file(&self.0);
    }
}

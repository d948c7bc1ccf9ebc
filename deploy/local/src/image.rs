//! Writes container images without a container engine: one layer, reproducible byte by byte.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::EntryType;

use crate::component::Component;
use crate::config::{self, CONTAINERD_SOCKET};
use crate::error::{At, Error, failed};
use crate::instance::Instance;
use crate::node::inside;

/// An image for this machine's architecture. Its user is the unprivileged 65532:65532.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name with a tag: `localhost/k8sensus:dev`.
    pub name: String,
    pub entrypoint: Vec<String>,
    pub files: Vec<ImageFile>,
}

#[derive(Clone, Debug)]
pub struct ImageFile {
    pub source: Source,
    /// The path in the image. Parent folders need no entries.
    pub path: String,
    /// The permissions; ignored for a link.
    pub mode: u32,
}

/// The content of an image at some path.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file on this machine; links are followed.
    File(PathBuf),
    Text(String),
    /// A symbolic link to that path in the image.
    Link(String),
    Folder,
}

impl From<PathBuf> for Source {
    fn from(file: PathBuf) -> Self {
        Self::File(file)
    }
}

impl Image {
    /// Writes an OCI archive and returns the digest of its manifest.
    pub fn write(&self, output: &Path) -> Result<String, Error> {
        let (bytes, digest) = self.archive().at("packing the image for", output)?;
        if let Some(folder) = output.parent() {
            fs::create_dir_all(folder).at("creating", folder)?;
        }
        File::create(output).and_then(|mut file| file.write_all(&bytes)).at("writing", output)?;
        Ok(digest)
    }

    fn archive(&self) -> io::Result<(Vec<u8>, String)> {
        let layer = self.layer()?;
        let mut packed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
        packed.write_all(&layer)?;
        let packed = packed.finish()?;
        let platform = json!({"architecture": architecture(), "os": "linux"});
        let config = json!({
            "architecture": platform["architecture"],
            "os": platform["os"],
            "config": {"Entrypoint": self.entrypoint, "User": "65532:65532", "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
            "history": [{"comment": "k8sensus-local"}],
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &packed)],
        })
        .to_string()
        .into_bytes();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        entry["platform"] = platform;
        entry["annotations"] = json!({"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag});
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        })
        .to_string()
        .into_bytes();

        let mut archive = tar::Builder::new(Vec::new());
        append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        append(&mut archive, "index.json", &index, 0o644)?;
        for blob in [&config, &manifest, &packed] {
            append(&mut archive, &format!("blobs/{}", digest(blob).replace(':', "/")), blob, 0o644)?;
        }
        Ok((archive.into_inner()?, digest(&manifest)))
    }

    /// Packs the files, sorted, without times and owned by root, so that equal files make an equal image.
    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by_key(|file| file.path.trim_start_matches('/'));
        let mut layer = tar::Builder::new(Vec::new());
        for file in files {
            let path = file.path.trim_start_matches('/');
            match &file.source {
                Source::File(source) => {
                    let content = fs::read(source)
                        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", source.display())))?;
                    append(&mut layer, path, &content, file.mode)?;
                }
                Source::Text(text) => append(&mut layer, path, text.as_bytes(), file.mode)?,
                Source::Link(target) => {
                    layer.append_link(&mut header(EntryType::Symlink, 0, 0o777), path, target)?;
                }
                Source::Folder => {
                    layer.append_data(&mut header(EntryType::Directory, 0, file.mode), path, io::empty())?;
                }
            }
        }
        layer.into_inner()
    }
}

/// Loads an archive into the node, where pods with `imagePullPolicy: IfNotPresent` find it.
pub(crate) fn import(instance: &Instance, archive: &Path) -> Result<(), Error> {
    let anchor = instance.anchor().ok_or(Error::NoComponent {
        component: Component::Containerd,
        reason: "it is only a control plane, or its node is gone",
    })?;
    let mut command = inside(anchor, [config::program(instance, "ctr").as_os_str()]);
    // Through standard input, because the file may be hidden in the node.
    command.args(["--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "images", "import", "-"]);
    let input = File::open(archive).at("opening", archive)?;
    let output = command.stdin(Stdio::from(input)).output().at("running", command.get_program())?;
    if output.status.success() { Ok(()) } else { Err(failed(&command, output.status, &output.stderr)) }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
    archive.append_data(&mut header(EntryType::Regular, content.len() as u64, mode), path, content)
}

fn header(kind: EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Returns this machine's architecture by its Go name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn image_does_not_depend_on_the_order_or_time_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let source = folder.path().join(name);
            fs::write(&source, name).unwrap();
            ImageFile { source: source.into(), path: format!("/{name}"), mode: 0o755 }
        };
        let [first, second] = [file("kestrel"), file("heron")];
        let image = |files| Image { name: "localhost/birds:dev".into(), entrypoint: vec!["/kestrel".into()], files };
        let one = image(vec![first.clone(), second.clone()]).archive().unwrap();
        File::open(folder.path().join("kestrel"))
            .unwrap()
            .set_modified(SystemTime::now() - Duration::from_secs(4711))
            .unwrap();
        let other = image(vec![second, first]).archive().unwrap();
        assert_eq!(one, other);
        assert!(one.1.starts_with("sha256:") && one.1.len() == 71);
    }

    #[test]
    fn missing_file_is_named_in_the_error() {
        let files = vec![ImageFile {
            source: Source::File("/nonexistent/kestrel".into()),
            path: "kestrel".into(),
            mode: 0o755,
        }];
        let image = Image { name: "localhost/birds:dev".into(), entrypoint: Vec::new(), files };
        assert!(image.write(Path::new("/dev/null")).unwrap_err().to_string().contains("/nonexistent/kestrel"));
    }

    #[test]
    fn image_contains_links_texts_and_folders() {
        let entry = |source, path: &str, mode| ImageFile { source, path: path.into(), mode };
        let files = vec![
            entry(Source::Folder, "/tmp", 0o1777),
            entry(Source::Link("/bin/kestrel".into()), "/usr/bin/bird", 0),
            entry(Source::Text("moss\n".into()), "/etc/perch", 0o644),
        ];
        let image = Image { name: "localhost/birds:dev".into(), entrypoint: Vec::new(), files };
        let layer = image.layer().unwrap();
        let found: Vec<String> = tar::Archive::new(&layer[..])
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                io::Read::read_to_string(&mut entry, &mut text).unwrap();
                let (path, header) = (entry.path().unwrap().display().to_string(), entry.header());
                let link = header.link_name().unwrap().map(|link| link.display().to_string());
                format!("{:?} {path} {:o} {link:?} {text:?}", header.entry_type(), header.mode().unwrap())
            })
            .collect();
        let expected = [
            r#"Regular etc/perch 644 None "moss\n""#,
            r#"Directory tmp 1777 None """#,
            r#"Symlink usr/bin/bird 777 Some("/bin/kestrel") """#,
        ];
        assert_eq!(found, expected);
    }
}

//! The instance's certificate authority, its certificates and the kubeconfigs that use them.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use crate::error::{At, Error};
use crate::folder::Folder;

/// The certificate of the administrator, which the API server also uses as a client of the kubelet.
pub(crate) const ADMIN: &str = "admin";

/// Users of the API: file name of the certificate, user name, group. RBAC has roles for these names and groups
/// (Kubernetes: "PKI certificates and requirements").
const USERS: [(&str, &str, Option<&str>); 5] = [
    (ADMIN, "admin", Some("system:masters")),
    ("kube-controller-manager", "system:kube-controller-manager", None),
    ("kube-scheduler", "system:kube-scheduler", None),
    ("kubelet", "system:node:node0", Some("system:nodes")),
    ("kube-proxy", "system:kube-proxy", None),
];

/// Writes all keys and certificates; `addresses` are those of the API server and the kubelet.
pub(crate) fn write(folder: &Folder, addresses: &[&str]) -> Result<(), Error> {
    let authority_key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "k8sensus-local");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority = parameters.self_signed(&authority_key)?;
    // The authority's key stays in memory: nothing is signed later.
    file(&folder.pki("ca.crt"), &authority.pem())?;
    let issuer = Issuer::new(parameters, authority_key);

    let certificate = |name: &str, common_name: &str, group: Option<&str>, names: Vec<String>| {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(names)?;
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(group) = group {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = parameters.signed_by(&key, &issuer)?;
        file(&folder.pki(&format!("{name}.crt")), &signed.pem())?;
        file(&folder.pki(&format!("{name}.key")), &key.serialize_pem())
    };
    let named = |names: &[&str]| names.iter().chain(addresses).map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let services = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.96.0.1"];
    certificate("kube-apiserver", "kube-apiserver", None, named(&services))?;
    certificate("etcd", "etcd", None, named(&["localhost"]))?;
    for (name, common_name, group) in USERS {
        certificate(name, common_name, group, if name == "kubelet" { named(&["node0"]) } else { Vec::new() })?;
    }

    let accounts = KeyPair::generate()?;
    file(&folder.pki("service-accounts.key"), &accounts.serialize_pem())?;
    file(&folder.pki("service-accounts.pub"), &accounts.public_key_pem())
}

/// Writes the kubeconfig of every user; the administrator's is in the top folder of the instance.
pub(crate) fn write_kubeconfigs(folder: &Folder, name: &str, server: &str) -> Result<(), Error> {
    let cluster = format!("k8sensus-{name}");
    for (user, _, _) in USERS {
        // JSON is YAML.
        let address = json!({"server": server, "certificate-authority": folder.pki("ca.crt")});
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster, "cluster": address}],
            "users": [{"name": user, "user": {
                "client-certificate": folder.pki(&format!("{user}.crt")),
                "client-key": folder.pki(&format!("{user}.key")),
            }}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
            "current-context": cluster,
        });
        let path = if user == ADMIN { folder.kubeconfig() } else { folder.pki(&format!("{user}.kubeconfig")) };
        file(&path, &format!("{config:#}\n"))?;
    }
    Ok(())
}

fn file(path: &Path, text: &str) -> Result<(), Error> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).at("creating", path)?;
    file.write_all(text.as_bytes()).at("writing", path)
}

use k8sensus_group::Group;
use k8sensus_group::judge::suspension::change;
use k8sensus_group::observed::pod::PodView;

use super::{MINIMAL, NATIVE, with};

#[test]
fn suspension_is_annotated_only_while_pods_are_about_to_be_removed() {
    let pods = [PodView { template_hash: Some("7c9".to_owned()), ..PodView::default() }];
    let made_by_hand = [PodView::default()];
    for (suspended, pods, spec, wanted) in [
        (false, &pods[..], "suspend: true", Some(true)),
        (false, &pods, "replicas: 0", Some(true)),
        (true, &pods, "suspend: true", None),
        (false, &made_by_hand, "suspend: true", None),
        (false, &[], "suspend: true", None),
        (true, &[], "suspend: true", None),
        (true, &[], "replicas: 1", Some(false)),
        (true, &pods, "replicas: 3", Some(false)),
        (false, &pods, "replicas: 3", None),
    ] {
        let of = |manifest: &str| change(&Group::check(&with(manifest, spec)).unwrap(), suspended, || pods.to_vec());
        assert_eq!(of(MINIMAL), wanted, "{suspended} {} {spec}", pods.len());
        // Mode Native never sets the annotation, but removes that of another mode.
        assert_eq!(of(NATIVE), wanted.filter(|suspended| !suspended), "Native: {suspended} {} {spec}", pods.len());
    }
}

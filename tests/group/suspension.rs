use k8sensus::group::Group;
use k8sensus::group::judge::suspension::change;
use k8sensus::group::observed::pod::PodView;

use super::{MINIMAL, NATIVE, with};

#[test]
fn those_that_are_about_to_end_are_told_that_nobody_is_to_lead() {
    let pods = [PodView { revision: Some("7c9".to_owned()), ..PodView::default() }];
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
        let said = |manifest: &str| change(&Group::check(&with(manifest, spec)).unwrap(), suspended, || pods.to_vec());
        assert_eq!(said(MINIMAL), wanted, "{suspended} {} {spec}", pods.len());
        // It does not listen, but what another mode has left there goes.
        assert_eq!(said(NATIVE), wanted.filter(|told| !told), "Native: {suspended} {} {spec}", pods.len());
    }
}

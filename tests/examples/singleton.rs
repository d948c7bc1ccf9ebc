use std::fs;
use std::path::Path;

use super::{LIMIT, Stage};
use crate::support::within;

/// Returns the pieces in the journal, each as (pod, token, number). Panics if two pieces overlap.
fn pieces(journal: &Path) -> Vec<(String, u64, u32)> {
    let text = fs::read_to_string(journal).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let mut pieces = Vec::new();
    for pair in lines.chunks_exact(2) {
        let (begin, end) = (pair[0].strip_prefix("begin "), pair[1].strip_prefix("end "));
        assert!(begin.is_some() && begin == end, "two replicas at work:\n{text}");
        let mut fields = begin.unwrap().split(' ');
        let number = fields.next().unwrap().parse().unwrap();
        pieces.push((fields.next().unwrap().to_owned(), fields.next().unwrap().parse().unwrap(), number));
    }
    pieces
}

#[test]
fn singleton_works_alone_and_hands_over_on_sigterm() {
    let stage = Stage::new("singleton");
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let path = journal.to_str().unwrap();
    let done_by = |pod: &str| pieces(&journal).iter().filter(|(by, ..)| by == pod).count();

    let mut otter = stage.replica("otter", &[path]);
    within(60, "work", || (done_by("otter") > 0).then_some(()));
    let mut heron = stage.replica("heron", &[path]);
    let before = done_by("otter");
    within(60, "work beside a standby", || (done_by("otter") >= before + 5).then_some(()));
    assert!(!heron.says("leads"), "{}", heron.output());

    // SIGTERM comes in the middle of a piece.
    let lines = || fs::read_to_string(&journal).unwrap().lines().count();
    within(60, "the end of a piece", || lines().is_multiple_of(2).then_some(()));
    within(60, "the start of a piece", || (!lines().is_multiple_of(2)).then_some(()));
    assert!(otter.terminate(LIMIT).success());
    within(60, "work of the successor", || (done_by("heron") >= 3).then_some(()));
    assert!(heron.terminate(LIMIT).success());
    assert_eq!(stage.holder(), "", "the Lease must be released");

    let text = fs::read_to_string(&journal).unwrap();
    assert!(text.lines().count().is_multiple_of(2), "a piece was cut:\n{text}");
    let pieces = pieces(&journal);
    let (first, second) = pieces.split_at(done_by("otter"));
    for (pod, part) in [("otter", first), ("heron", second)] {
        assert!(part.iter().all(|(by, token, _)| by == pod && *token == part[0].1), "{pieces:#?}");
        assert!(part.iter().map(|piece| piece.2).eq(1..=u32::try_from(part.len()).unwrap()), "{pieces:#?}");
    }
    assert!(first[0].1 < second[0].1, "the token must rise: {pieces:#?}");
    stage.assert_nothing_was_forbidden();
}

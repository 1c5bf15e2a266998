//! `--dry-run`: what would happen, on standard output, and nothing else.

use std::{fmt::Write as _, sync::Arc};

use ncc_copy::Plan;
use ncc_progress::{
    Direction,
    human::{nar, nars, paths as human_paths},
};
use ncc_store::{PathInfo, StoreDir};

/// What a plan would do, in words. `drawn`: a tree has said which paths, in a form that fits the screen.
pub(crate) fn describe(plan: &Plan, direction: &Direction, store_dir: &StoreDir, drawn: bool) -> String {
    let sizes = |infos: &[Arc<PathInfo>]| nars(infos.iter().map(|info| info.nar_size));
    let (paths, size) = (human_paths(plan.to_send.len()), sizes(&plan.to_send));
    let mut text = format!("would copy {paths} ({size}) {}\n", direction.words());
    if !drawn {
        list(&mut text, &plan.to_send, store_dir);
    }
    if plan.unforeseen {
        text.push_str("less, if the receiving side can substitute some of these, which it could not tell\n");
    }
    if !plan.substituted.is_empty() {
        let (paths, size) = (human_paths(plan.substituted.len()), sizes(&plan.substituted));
        let _ = writeln!(text, "would be substituted: {paths} ({size})");
        if !drawn {
            list(&mut text, &plan.substituted, store_dir);
        }
    }
    let (paths, size) = (human_paths(plan.present.len()), sizes(&plan.present));
    let _ = writeln!(text, "already there: {paths} ({size})");
    text
}

fn list(text: &mut String, infos: &[Arc<PathInfo>], store_dir: &StoreDir) {
    for info in infos {
        let _ = writeln!(text, "{:>12}  {}", nar(info.nar_size), store_dir.full(&info.path));
    }
}

//! `ProfileService.Report`: what was recorded beside what the kernel says.

use std::collections::BTreeSet;

use super::HostReader;
use super::convert;
use super::error::ApiError;
use super::profiles::asked;
use super::query::{Answer, Need, Queries, Question, Source, blocking, selector};
use crate::model::ProfileKind;
use crate::proto::{self, ReportRequest, ReportResponse};
use crate::render::{Aspect, HotStack, Observed, ReportLine, report};

const DEFAULT_STACKS: u32 = 3;
const MAX_STACKS: u32 = 100;

/// Merges both kinds and reads the host's figures, or those of the cgroup that is meant.
pub(super) async fn answer(
    queries: &Queries,
    host: &HostReader,
    request: ReportRequest,
) -> Result<ReportResponse, ApiError> {
    let selection = request.selection.unwrap_or_default();
    if !selection.capture_id.is_empty() {
        let problem = "a report is about a range of time".to_owned();
        return Err(ApiError::Invalid { field: "selection.capture_id", problem });
    }
    let stacks = match request.stacks {
        0 => DEFAULT_STACKS,
        stacks @ 1..=MAX_STACKS => stacks,
        stacks => {
            let problem = format!("{stacks} stacks asked for, {MAX_STACKS} allowed");
            return Err(ApiError::Invalid { field: "stacks", problem });
        }
    };
    let range = asked(selection.range.unwrap_or_default())?;
    let text = selection.r#where;
    let text = blocking(move || selector(&text).map(|_| text)).await?;
    let host = HostReader::clone(host);
    let work = move |queries: &Queries| {
        let ask = |kind| {
            let question = Question { source: Source::Windows { kind, range }, selector: selector(&text)? };
            match queries.merge(&question) {
                Ok(answer) => Ok(Ok(answer)),
                Err(error @ ApiError::NoData { .. }) => Ok(Err(error)),
                Err(error) => Err(error),
            }
        };
        let (on_cpu, off_cpu) = (ask(ProfileKind::OnCpu)?, ask(ProfileKind::OffCpu)?);
        let (on_cpu, off_cpu) = match (on_cpu, off_cpu) {
            (Err(error), Err(_)) => return Err(error),
            (on_cpu, off_cpu) => (on_cpu.ok(), off_cpu.ok()),
        };
        let cgroup = if text.is_empty() { None } else { only_cgroup([&on_cpu, &off_cpu]) };
        let facts = host(cgroup.as_deref());
        let abouts = [&on_cpu, &off_cpu].map(|answer| answer.as_ref().map(Answer::about));
        let observed = |answer: &'_ Option<Answer>, index: usize| {
            answer.as_ref().map(|answer| answer.profile.clone()).zip(abouts[index].clone())
        };
        let (on, off) = (observed(&on_cpu, 0), observed(&off_cpu, 1));
        let lines = report(
            &Observed {
                on_cpu: on.as_ref().map(|(profile, about)| (&**profile, about)),
                off_cpu: off.as_ref().map(|(profile, about)| (&**profile, about)),
                facts: &facts,
                of_cgroup: cgroup.is_some(),
            },
            stacks as usize,
        );
        let summary = on_cpu.as_ref().or(off_cpu.as_ref()).map(|answer| &answer.summary);
        Ok(ReportResponse {
            scope: cgroup.unwrap_or_else(|| "host".to_owned()),
            from: summary.map(|summary| summary.range.from.into()),
            to: summary.map(|summary| summary.range.to.into()),
            covered: summary.map(|summary| convert::length(summary.covered)),
            lines: lines.into_iter().map(line).collect(),
        })
    };
    Ok(queries.work(Need::TWO_PROFILES, work).await?.0)
}

/// The cgroup in which all that was selected ran, if it is one.
fn only_cgroup(answers: [&Option<Answer>; 2]) -> Option<String> {
    let profiles = answers.into_iter().flatten().map(|answer| &answer.profile);
    let cgroups: BTreeSet<&str> =
        profiles.flat_map(|profile| profile.entries().map(|entry| &*entry.labels.cgroup)).collect();
    match cgroups.into_iter().collect::<Vec<_>>().as_slice() {
        [one] if one.len() > 1 => Some((*one).to_owned()),
        _ => None,
    }
}

fn line(line: ReportLine) -> proto::ReportLine {
    let aspect = match line.aspect {
        Aspect::Utilization => proto::Aspect::Utilization,
        Aspect::Saturation => proto::Aspect::Saturation,
        Aspect::Errors => proto::Aspect::Errors,
    };
    proto::ReportLine {
        aspect: aspect.into(),
        resource: line.resource.to_owned(),
        measure: line.measure.to_owned(),
        value: line.value,
        unit: line.unit.to_owned(),
        text: line.text,
        stacks: line.stacks.into_iter().map(stack).collect(),
    }
}

fn stack(stack: HotStack) -> proto::HotStack {
    proto::HotStack { share: stack.share, comm: stack.comm, frames: stack.frames }
}

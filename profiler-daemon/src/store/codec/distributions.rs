//! Distributions of waits as columns of small numbers.

use super::{Damaged, format, rows};
use crate::model::{Activity, Distribution, Distributions, StillOpen};

/// Most that parts or variances of one value can be, so that sums of many cannot overflow by much:
/// they saturate.
const MAX: u64 = 1 << 60;
/// Bits that a variance keeps: 3 % of it, 1.5 % of the standard error.
const BITS: u32 = 6;

/// A variance with as many digits as it is worth; the zeros behind compress.
pub(super) fn rounded(variance: u64) -> u64 {
    let drop = (u64::BITS - variance.leading_zeros()).saturating_sub(BITS);
    if drop == 0 { variance } else { (variance.saturating_add(1 << (drop - 1)) >> drop) << drop }
}

pub(super) fn write(distributions: &Distributions) -> format::Distributions {
    let swept = distributions.swept_ns();
    let mut message = format::Distributions { swept, ..format::Distributions::default() };
    let mut waits: Vec<(u32, Activity, &Distribution)> = distributions.waits().collect();
    waits.sort_unstable_by_key(|&(labels, activity, _)| (labels, activity));
    let mut before = 0_u32;
    for (at, (labels, activity, waits)) in (0_u32..).zip(waits) {
        message.labels.push(labels.wrapping_sub(before) as i32);
        message.activity.push(rows::activity_number(activity));
        message.records.push(waits.ended.records);
        message.max_ns.push(waits.ended.max_ns);
        message.buckets.push(waits.ended.buckets().len() as u32);
        for &(bucket, parts) in waits.ended.buckets() {
            message.bucket.push(bucket.into());
            message.parts.push(parts);
        }
        if waits.open != StillOpen::default() {
            message.open.push(at);
            message.open_ago_ns.push(swept.saturating_sub(waits.open.at_ns));
            message.open_parts.push(waits.open.parts);
            message.open_longest_ns.push(waits.open.longest_ns);
        }
        before = labels;
    }
    let mut variances: Vec<(u32, u64)> = distributions.variances().collect();
    variances.sort_unstable();
    let mut before = 0_u32;
    for (labels, us2) in variances {
        message.variance_labels.push(labels.wrapping_sub(before) as i32);
        message.variance_us2.push(rounded(us2));
        before = labels;
    }
    message
}

/// Windows of earlier versions have none.
pub(super) fn read(message: Option<format::Distributions>) -> Result<Distributions, Damaged> {
    let mut distributions = Distributions::default();
    let Some(message) = message else { return Ok(distributions) };
    let uneven = || Damaged::new("columns of distributions differ in length");
    let length = message.labels.len();
    let columns =
        [message.activity.len(), message.records.len(), message.max_ns.len(), message.buckets.len()];
    let opens = [message.open_ago_ns.len(), message.open_parts.len(), message.open_longest_ns.len()];
    let same = columns.iter().all(|&other| other == length)
        && opens.iter().all(|&other| other == message.open.len())
        && message.bucket.len() == message.parts.len()
        && message.variance_labels.len() == message.variance_us2.len();
    if !same {
        return Err(uneven());
    }
    let too_many = || Damaged::new("more distributions than a window can have");
    distributions.swept(message.swept);
    let mut buckets = message.bucket.iter().zip(&message.parts);
    let (mut labels, mut keys) = (0_u32, Vec::with_capacity(length));
    let counts = message.records.iter().zip(&message.max_ns).zip(&message.buckets);
    for ((&step, &activity), ((&records, &max_ns), &count)) in
        message.labels.iter().zip(&message.activity).zip(counts)
    {
        labels = labels.wrapping_add(step as u32);
        let activity = rows::activity_of(activity)?;
        let waits = distributions.entry(labels, activity).ok_or_else(too_many)?;
        for _ in 0..count {
            let (&bucket, &parts) = buckets.next().ok_or_else(uneven)?;
            let bucket = u8::try_from(bucket).map_err(|_| Damaged::new("there is no such bucket"))?;
            waits.ended.add_bucket(bucket, parts.min(MAX));
        }
        waits.ended.records = records.min(MAX);
        waits.ended.max_ns = max_ns;
        keys.push((labels, activity));
    }
    if buckets.next().is_some() {
        return Err(uneven());
    }
    let open = message.open_ago_ns.iter().zip(&message.open_parts).zip(&message.open_longest_ns);
    for (&at, ((&ago_ns, &parts), &longest_ns)) in message.open.iter().zip(open) {
        let &(labels, activity) =
            keys.get(at as usize).ok_or_else(|| Damaged::new("there is no such distribution"))?;
        let waits = distributions.entry(labels, activity).ok_or_else(too_many)?;
        let at_ns = message.swept.saturating_sub(ago_ns);
        waits.open = StillOpen { at_ns, parts: parts.min(MAX), longest_ns };
    }
    let mut labels = 0_u32;
    for (&step, &us2) in message.variance_labels.iter().zip(&message.variance_us2) {
        labels = labels.wrapping_add(step as u32);
        distributions.add_variance(labels, us2.min(MAX));
    }
    Ok(distributions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Wait;
    use proptest::prelude::*;

    fn distributions() -> impl Strategy<Value = Distributions> {
        let activity = prop_oneof![
            Just(Activity::RunQueue),
            Just(Activity::Preempted),
            (0..Wait::ALL.len()).prop_map(|at| Activity::Blocked(Wait::ALL[at])),
        ];
        let waits =
            proptest::collection::vec((any::<u32>(), activity, 0..1_u64 << 40, 1..1_u64 << 30), 0..40);
        let open = proptest::collection::vec(any::<bool>(), 40);
        let variances = proptest::collection::vec((any::<u32>(), 0..64_u64), 0..20);
        (waits, open, variances, 1..1_u64 << 62).prop_map(|(waits, open, variances, swept)| {
            let mut all = Distributions::default();
            all.swept(swept);
            for ((labels, activity, ns, parts), open) in waits.into_iter().zip(open) {
                let waits = all.entry(labels, activity).expect("room");
                waits.ended.add(ns, parts);
                if open {
                    waits.open = StillOpen { at_ns: swept - ns % swept, parts, longest_ns: ns };
                }
            }
            variances.into_iter().for_each(|(labels, us2)| all.add_variance(labels, us2));
            all
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(all in distributions()) {
            let read = read(Some(write(&all))).expect("good data");
            // The order is that of the file.
            prop_assert_eq!(write(&read), write(&all));
            prop_assert_eq!(&read, &all);
        }

        #[test]
        fn a_variance_keeps_what_it_is_worth(variance in any::<u64>()) {
            let ratio = rounded(variance) as f64 / (variance as f64).max(1.0);
            prop_assert!((0.98..1.02).contains(&ratio) || variance == 0, "{}", ratio);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |message| read(Some(message)).is_err();
        let good = format::Distributions { labels: vec![1], ..format::Distributions::default() };
        assert!(refused(good.clone()), "no activity");
        let good = format::Distributions {
            activity: vec![1],
            records: vec![1],
            max_ns: vec![1],
            buckets: vec![1],
            bucket: vec![3],
            parts: vec![16],
            ..good
        };
        assert!(!refused(good.clone()));
        assert!(refused(format::Distributions { buckets: vec![2], ..good.clone() }), "a bucket too few");
        assert!(refused(format::Distributions { buckets: vec![0], ..good.clone() }), "a bucket too many");
        assert!(refused(format::Distributions { bucket: vec![256], ..good.clone() }), "no such bucket");
        let open = format::Distributions {
            open: vec![1],
            open_ago_ns: vec![0],
            open_parts: vec![1],
            open_longest_ns: vec![1],
            ..good
        };
        assert!(refused(open), "of nobody");
    }
}

//! Down-sampling of curves by largest triangle, three buckets. Pure.
//!
//! S. Steinarsson, "Downsampling Time Series for Visual Representation", MSc thesis, University of Iceland, 2013,
//! section 4.2: the first and the last point stay; the points between fall into buckets of equal count, and of each
//! bucket the one stays that makes the largest triangle with the point kept before and the mean of the next bucket.

/// Picks `wanted` of `points` (all of them where there are no more), in order. `points` ascend in x and are finite;
/// `wanted` below 2 picks none.
#[must_use]
pub fn lttb(points: &[(f64, f64)], wanted: usize) -> Vec<(f64, f64)> {
    if wanted < 2 {
        return Vec::new();
    }
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    if points.len() <= wanted {
        return points.to_vec();
    }
    let inner = &points[1..points.len() - 1];
    let buckets = wanted - 2;
    // Integer arithmetic: the buckets cover the inner points exactly, however many there are.
    let bucket = |index: usize| &inner[index * inner.len() / buckets..(index + 1) * inner.len() / buckets];
    let mut picked = Vec::with_capacity(wanted);
    picked.push(*first);
    let mut before = *first;
    for index in 0..buckets {
        let next = if index + 1 < buckets { mean(bucket(index + 1)) } else { *last };
        let best = bucket(index)
            .iter()
            .map(|point| (area(before, *point, next), *point))
            // Of equal areas the first stays, so that the outcome does not depend on rounding of later ones.
            .fold(None, |best: Option<(f64, (f64, f64))>, (area, point)| match best {
                Some((most, _)) if most >= area => best,
                Some(_) | None => Some((area, point)),
            });
        if let Some((_, point)) = best {
            picked.push(point);
            before = point;
        }
    }
    picked.push(*last);
    picked
}

#[expect(clippy::cast_precision_loss, reason = "a bucket holds far fewer than 2^53 points")]
fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len().max(1) as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    (x, y)
}

/// Twice the area of the triangle.
fn area(a: (f64, f64), b: (f64, f64), c: (f64, f64)) -> f64 {
    ((a.0 - c.0) * (b.1 - a.1) - (a.0 - b.0) * (c.1 - a.1)).abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_peak_survives_down_sampling() {
        let mut points: Vec<(f64, f64)> = (0..1000).map(|x| (f64::from(x), 0.0)).collect();
        points[617].1 = 5.0;
        let picked = lttb(&points, 20);
        assert_eq!(picked.len(), 20);
        assert!(picked.contains(&(617.0, 5.0)));
    }

    #[test]
    fn of_four_points_and_three_wanted_the_larger_triangle_stays() {
        // By hand: with (0, 0) and (3, 0), (1, 2) spans 6 / 2 and (2, 1) spans 3 / 2.
        assert_eq!(
            lttb(&[(0.0, 0.0), (1.0, 2.0), (2.0, 1.0), (3.0, 0.0)], 3),
            [(0.0, 0.0), (1.0, 2.0), (3.0, 0.0)]
        );
    }

    #[test]
    fn few_points_stay_as_they_are() {
        assert!(lttb(&[], 10).is_empty());
        assert_eq!(lttb(&[(1.0, 2.0)], 10), [(1.0, 2.0)]);
        assert_eq!(lttb(&[(1.0, 2.0), (2.0, 2.0)], 2), [(1.0, 2.0), (2.0, 2.0)]);
        assert!(lttb(&[(1.0, 2.0), (2.0, 2.0)], 1).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_picked_is_as_many_as_wanted_in_order_from_end_to_end(
            ys in proptest::collection::vec(-1e6..1e6f64, 0..400),
            wanted in 2..60usize,
        ) {
            let points: Vec<(f64, f64)> = (0..).map(f64::from).zip(ys.iter().copied()).collect();
            let picked = lttb(&points, wanted);
            prop_assert_eq!(picked.len(), points.len().min(wanted));
            prop_assert!(picked.windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert!(picked.iter().all(|point| points.contains(point)));
            prop_assert_eq!((picked.first(), picked.last()), (points.first(), points.last()));
        }

        #[test]
        fn down_sampling_twice_is_down_sampling_once(ys in proptest::collection::vec(-1e3..1e3f64, 3..200)) {
            let points: Vec<(f64, f64)> = (0..).map(f64::from).zip(ys.iter().copied()).collect();
            let once = lttb(&points, 25);
            prop_assert_eq!(lttb(&once, 25), once);
        }
    }
}

//! The latencies as a picture: how long the slowest tenth, hundredth, thousandth … of the requests took.

use std::path::Path;

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::books::Measure;
use crate::program::ProgramError;

/// The size of the picture, in pixels.
const SIZE: (u32, u32) = (900, 500);
/// Points on a curve.
const POINTS: u32 = 400;

/// Draws the latencies of transfers and reads into an SVG file.
///
/// # Errors
/// If there is nothing to draw, or the file can't be written.
pub(super) fn draw(file: &Path, measured: &Measure) -> Result<(), ProgramError> {
    let all = [("transfers", &measured.latency_us, BLUE), ("reads", &measured.read_latency_us, GREEN)];
    let curves: Vec<_> = all.into_iter().filter(|(_, latencies, _)| !latencies.is_empty()).collect();
    let longest = curves.iter().map(|(_, latencies, _)| latencies.max()).max();
    let Some(longest) = longest else { return Err(ProgramError::Other("there is no latency to draw".into())) };
    let most = curves.iter().map(|(_, latencies, _)| latencies.len()).max().unwrap_or(1);
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    let drawn = (|| {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption("Latency by percentile", ("sans-serif", 20))
            .margin(12)
            .margin_right(32) // half of the last label lies beyond the axis
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d((1.0..most.max(10) as f64).log_scale(), 0.0..longest as f64 / 1_000.0)?;
        let percentile = |one_in: &f64| format!("{} %", 100.0 - 100.0 / one_in);
        chart.configure_mesh().x_desc("percentile").y_desc("ms").x_label_formatter(&percentile).draw()?;
        for (name, latencies, colour) in &curves {
            let drawn = chart.draw_series(LineSeries::new(points(latencies), colour.stroke_width(2)))?;
            let colour = *colour;
            drawn.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
        }
        chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(BLACK).draw()?;
        area.present()
    })();
    drawn.map_err(|error| ProgramError::Other(format!("{}: can't draw: {error}", file.display())))
}

/// (n, ms): one request of n took longer than that.
fn points(latencies: &Histogram<u64>) -> impl Iterator<Item = (f64, f64)> + '_ {
    let decades = (latencies.len() as f64).log10();
    (0..=POINTS).map(move |step| {
        let one_in = 10f64.powf(decades * f64::from(step) / f64::from(POINTS));
        (one_in, latencies.value_at_quantile(1.0 - 1.0 / one_in) as f64 / 1_000.0)
    })
}

//! Curves over the number of readers, as SVG.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

pub(super) struct Curve {
    pub(super) name: String,
    /// Readers, and their mean seconds.
    pub(super) points: Vec<(f64, f64)>,
}

/// Both axes are logarithmic: what takes twice as long for twice the readers is a straight line.
pub(super) fn draw(file: &Path, curves: &[Curve]) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    draw_on(&SVGBackend::new(file, (800, 500)).into_drawing_area(), curves).map_err(|error| anyhow!("drawing: {error}"))
}

fn draw_on(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    curves: &[Curve],
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    area.fill(&WHITE)?;
    let (readers, seconds) = (extent(curves, |point| point.0), extent(curves, |point| point.1));
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((readers.0..readers.1).log_scale(), (seconds.0 * 0.8..seconds.1 * 1.25).log_scale())?;
    chart.configure_mesh().x_desc("readers started together").y_desc("mean seconds").draw()?;
    for (index, curve) in curves.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2)).point_size(3);
        let mark = move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2));
        chart.draw_series(line)?.label(curve.name.as_str()).legend(mark);
    }
    let place = SeriesLabelPosition::UpperLeft;
    chart.configure_series_labels().position(place).background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    area.present()
}

/// The least and the most of one coordinate.
fn extent(curves: &[Curve], pick: fn(&(f64, f64)) -> f64) -> (f64, f64) {
    let values = curves.iter().flat_map(|curve| &curve.points).map(pick);
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_is_named_and_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plots/readers.svg");
        let curve = |name: &str, of: f64| Curve { name: name.into(), points: vec![(1.0, of), (10.0, of * 2.0)] };
        draw(&file, &[curve("store", 3.0), curve("cache", 1.0)]).unwrap();
        let svg = std::fs::read_to_string(file).unwrap();
        assert!(svg.contains("store") && svg.contains("cache"), "{svg}");
        assert!(svg.matches("<polyline").count() >= 2, "{svg}");
    }
}

package main

import (
	"errors"
	"image/color"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// bars are the results that a picture shows: ratios to bare go-smtp.
type bars []result

func (b bars) Len() int                { return len(b) }
func (b bars) XY(i int) (x, y float64) { return b[i].value.median, float64(i) }
func (b bars) XError(i int) (lo, hi float64) {
	v := b[i].value
	return v.median - v.low, v.high - v.median
}

// goals are what is to be reached by them.
func (b bars) goals() plotter.XYs {
	var xys plotter.XYs
	for i, r := range b {
		if r.goal.sense != 0 {
			xys = append(xys, plotter.XY{X: r.goal.limit, Y: float64(i)})
		}
	}
	return xys
}

// plotRatios writes a picture of how many times as fast as without it a server
// is with the library.
func plotRatios(file string, results []result) error {
	var b bars
	var names []string
	for _, r := range slices.Backward(results) { // a picture starts at the bottom
		if r.against == string(bare) && r.unit(1) == duration(1) {
			b = append(b, r)
			names = append(names, r.work)
		}
	}
	if len(b) == 0 {
		return nil
	}
	p := plot.New()
	p.Title.Text = "Speed with a hook that passes everything, bare go-smtp = 1"
	p.X.Label.Text = "bars: median, whiskers: quartiles of the rounds, line: to reach"
	p.Title.Padding, p.X.Label.Padding = vg.Points(12), vg.Points(6)
	p.X.Min = 0
	values := make(plotter.Values, len(b))
	for i, r := range b {
		values[i] = r.value.median
	}
	chart, err := plotter.NewBarChart(values, vg.Points(12))
	if err != nil {
		return err
	}
	chart.Horizontal = true
	chart.LineStyle.Width = 0
	chart.Color = color.RGBA{R: 0x6f, G: 0xa8, B: 0xdc, A: 0xff}
	whiskers, err := plotter.NewXErrorBars(b)
	if err != nil {
		return err
	}
	goals, err := plotter.NewScatter(b.goals())
	if err != nil {
		return err
	}
	goals.GlyphStyle = draw.GlyphStyle{
		Color: color.RGBA{R: 0xcc, A: 0xff}, Radius: vg.Points(7), Shape: stroke{},
	}
	p.Add(chart, whiskers, goals)
	p.NominalY(names...)
	return save(p, 9*vg.Inch, vg.Length(1.2+0.3*float64(len(b)))*vg.Inch, file)
}

// save writes the picture with its font: with another, names would run into the
// bars.
func save(p *plot.Plot, width, height vg.Length, file string) error {
	canvas := vgsvg.NewWith(vgsvg.UseWH(width, height), vgsvg.EmbedFonts(true))
	p.Draw(draw.New(canvas))
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(f)
	return errors.Join(err, f.Close())
}

// stroke is an upright line.
type stroke struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (stroke) DrawGlyph(c *draw.Canvas, style draw.GlyphStyle, at vg.Point) {
	c.SetLineStyle(draw.LineStyle{Color: style.Color, Width: vg.Points(2)})
	var path vg.Path
	path.Move(vg.Point{X: at.X, Y: at.Y - style.Radius})
	path.Line(vg.Point{X: at.X, Y: at.Y + style.Radius})
	c.Stroke(path)
}

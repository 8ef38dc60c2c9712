# SPDX-License-Identifier: GPL-2.0
#
# Plots the costs above the floor against rules, routes, flows and zones:
# gnuplot -e "results='DIRECTORY'" plots.gp
# Reads the .dat files that table.py writes to DIRECTORY.

set terminal svg size 720,420 font 'sans-serif,13' background 'white'
set datafile separator '\t'
set key outside right autotitle columnhead
set grid ytics
set ylabel 'instructions per packet above the floor'
set yrange [0:*]

do for [plot in 'rules routes flows zones'] {
	set output sprintf('%s/%s.svg', results, plot)
	if (plot eq 'rules') { set logscale y; set yrange [1000:*] } else { unset logscale y; set yrange [0:*] }
	set xlabel (plot eq 'rules' ? 'policy rules, 100 UDP connections' : plot eq 'routes' ? 'routes, 100 UDP connections' : \
		plot eq 'flows' ? 'TCP connections' : 'zones, 10,000 UDP connections in all')
	plot for [i = 2:7] sprintf('%s/%s.dat', results, plot) using i:xtic(1) with linespoints linewidth 2 pointtype 7
}

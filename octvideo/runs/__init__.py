"""From a folder of videos to a trained network and a report: `octvideo train FOLDER`,
`octvideo.fit`.

A `Recipe` holds the choices of the user. It becomes settings (`config`); the machine, the videos
and the available weights fill in the rest. From there on a run is what `octvideo train --cfg` does.
"""

export function startExplore(place) { place.textContent = ""; }

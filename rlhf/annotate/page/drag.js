// Drag with mouse, pen or finger. `drop(onto)` gets the sibling nearest to where `moved` was let go, perhaps itself.
export function draggable(handle, moved, siblings, drop) {
  handle.onpointerdown = (down) => {
    if (down.button) return;
    const start = { x: down.clientX + scrollX, y: down.clientY + scrollY, box: moved.getBoundingClientRect(), scroll: scrollY };
    let dragging = false;
    const move = (event) => {
      const [x, y] = [event.clientX + scrollX - start.x, event.clientY + scrollY - start.y];
      if (!dragging && Math.hypot(x, y) < 6) return;
      if (!dragging) handle.setPointerCapture(down.pointerId);
      dragging = true;
      moved.classList.add("dragged");
      moved.style.transform = `translate(${x}px, ${y}px)`;
      const target = nearest(event, siblings(), moved, start);
      siblings().forEach((each) => each.classList.toggle("over", each === target && each !== moved));
      if (handle !== moved) scrollBy(0, event.clientY < 90 ? -12 : event.clientY > innerHeight - 160 ? 12 : 0);
    };
    const end = (event) => {
      document.removeEventListener("pointermove", move);
      for (const name of ENDS) document.removeEventListener(name, end);
      if (!dragging) return;
      const target = nearest(event, siblings(), moved, start);
      moved.classList.remove("dragged");
      moved.style.transform = "";
      siblings().forEach((each) => each.classList.remove("over"));
      swallowClick();
      if (event.type === "pointerup") drop(target);
    };
    document.addEventListener("pointermove", move);
    for (const name of ENDS) document.addEventListener(name, end);
  };
}

const ENDS = ["pointerup", "pointercancel"];

function nearest(event, siblings, moved, start) {
  const far = (each) => {
    const shift = each === moved ? scrollY - start.scroll : 0;  // where it was lifted, not where it hovers
    const box = each === moved ? start.box : each.getBoundingClientRect();
    const x = Math.max(box.left - event.clientX, 0, event.clientX - box.right);
    const y = Math.max(box.top - shift - event.clientY, 0, event.clientY - box.bottom + shift);
    return Math.hypot(x, y);
  };
  return siblings.reduce((best, each) => (far(each) < far(best) ? each : best));
}

// The click that a browser sends after a drag means nothing.
function swallowClick() {
  const swallow = (event) => { event.stopPropagation(); event.preventDefault(); };
  document.addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => document.removeEventListener("click", swallow, { capture: true }), 50);
}

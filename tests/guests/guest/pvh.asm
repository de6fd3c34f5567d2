; A 32-bit ELF file with a PVH entry note (Xen's public arch-x86/hvm/start_info.h), made by hand: checks what it is given.
bits 32
org 0x100000

elf:    db 0x7f, "ELF", 1, 1, 1
        times 9 db 0
        dw 2, 3 ; executable, i386
        dd 1, 0x100bad, headers - elf, 0, 0 ; the entry point of the header leads nowhere good
        dw headers - elf, 32, 2, 0, 0, 0
headers:
        dd 1, 0, 0x100000, 0x100000, end - elf, end - elf + 0x2000, 7, 4096 ; PT_LOAD
        dd 4, note - elf, note, note, note_end - note, note_end - note, 4, 4 ; PT_NOTE
note:   dd 4, 4, 18 ; XEN_ELFNOTE_PHYS32_ENTRY
        db "Xen", 0
        dd start
note_end:

%macro expect 3
        cmp %1, %2
        je %%good
        mov esi, %%text
        jmp fail
%%text: db %3, 10, 0
%%good:
%endmacro

fail:   call print
        mov eax, 17
        out 0xf4, eax
        hlt
print:  lodsb
        test al, al
        jz .end
        out 0xe9, al
        jmp print
.end:   ret

start:  mov esp, end + 0x2000
        expect dword [ebx], 0x336ec578, "start_info's magic"
        expect dword [ebx + 4], 1, "version 1"
        expect dword [ebx + 12], 1, "one module"
        mov eax, cr0
        and eax, 0x80000001
        expect eax, 1, "protected mode without paging"
        mov esi, [ebx + 16] ; module list
        expect dword [esi + 8], 5000, "the module's length"
        mov esi, [esi]
        expect byte [esi + 3], 21, "the module's content"
        mov esi, [ebx + 24] ; command line
        expect dword [esi], 'pvh=', "the command line"
        mov esi, [ebx + 32] ; RSDP
        expect dword [esi], 'RSD ', "the RSDP"
        expect dword [esi + 4], 'PTR ', "the RSDP, second half"
        mov ecx, [ebx + 48] ; memory map
        mov esi, [ebx + 40]
        xor edx, edx
.entry: cmp dword [esi + 16], 1
        jne .next
        add edx, [esi + 8]
.next:  add esi, 24
        loop .entry
        shr edx, 20
        expect edx, 31, "the memory map adds up to less than 32 MiB, by less than one"
        mov esi, good
        call print
        mov eax, 16
        out 0xf4, eax
        hlt
good:   db "PVH: 0 failures", 10, 0
end:
